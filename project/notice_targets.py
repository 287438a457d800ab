"""Where notices of incidents go: the tables [notices.NAME] of an environment."""

import base64
import re
from dataclasses import dataclass, field

from project.errors import ProjectError
from project.folder import text_field

NOTICE_FORMATS = ("webhook", "alertmanager")
NOTICE_SEVERITIES = ("review", "warning", "page")
NOTICE_KEYS = ("url", "format", "secret", "severity")
SECRET_PREFIX = "whsec_"  # noqa: S105  how Standard Webhooks writes a secret in base64
TARGET_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")


@dataclass(frozen=True, kw_only=True)
class NoticeTarget:
    """A table [notices.NAME]: where notices of incidents go. Texts are as in the file."""

    name: str
    url: str
    format: str = "webhook"
    secret: str = field(default="", repr=False)
    """The key of the signatures; empty: notices are not signed."""
    severity: str = "review"
    """Incidents below this severity are not sent."""


def read_notice_targets(tables: object, where: str) -> tuple[NoticeTarget, ...]:
    """Return the targets in the tables below `notices`. Raises ProjectError.

    where  the file, for the text of an error.
    """
    if not isinstance(tables, dict) or not all(isinstance(item, dict) for item in tables.values()):
        raise ProjectError(f"{where}: notices must be tables, such as [notices.ops]")
    targets = []
    for name, table in tables.items():
        place = f"{where}: [notices.{name}]"
        unknown = sorted(table.keys() - set(NOTICE_KEYS))
        if unknown or not TARGET_NAME.fullmatch(name):
            raise ProjectError(
                f"{place}: {unknown[0] if unknown else 'the name'} is not known; the keys are "
                f"{', '.join(NOTICE_KEYS)}, and a name matches {TARGET_NAME.pattern}"
            )
        texts = {key: text_field(table, key, place) for key in NOTICE_KEYS if key in table}
        target = NoticeTarget(name=name, **{"url": "", **texts})
        for key, known in (("format", NOTICE_FORMATS), ("severity", NOTICE_SEVERITIES)):
            if getattr(target, key) not in known:
                raise ProjectError(
                    f'{place}: {key} = "{getattr(target, key)}"; it is one of {", ".join(known)}'
                )
        if not target.url.startswith(("http://", "https://", "${")):
            raise ProjectError(f'{place}: url = "{target.url}"; it begins with http:// or https://')
        targets.append(target)
    return tuple(targets)


def check_secret(target: NoticeTarget, where: str) -> None:
    """Refuse a secret that would sign nothing, as an empty file gives it. Raises ProjectError.

    target  with references replaced.
    """
    key = target.secret.removeprefix(SECRET_PREFIX)
    try:
        good = bool(base64.b64decode(key, validate=True)) if key != target.secret else bool(key)
    except ValueError:
        good = False
    if not good:
        raise ProjectError(
            f"{where}: the secret of [notices.{target.name}] is empty, or no base64 after "
            f"{SECRET_PREFIX}; notices would not be signed"
        )
