"""The users of a store that Turnout starts, and the files with their passwords."""

import secrets
from pathlib import Path

from features.online.store_url import url_with_credentials
from host.files import make_private_folder, replace_file

READER = "reader"
"""May read rows: gateways."""
WRITER = "writer"
"""May read rows, and write rows that are newer: materialise and push."""
ERASER = "eraser"
"""May list keys and delete rows: `turnout features forget`."""

EVERY_USER = "+get +mget +hello +ping +select +role"
"""The commands of every user, as the store's access list has them."""
COMMANDS = {
    READER: EVERY_USER,
    WRITER: f"{EVERY_USER} +set +evalsha +script|load",
    ERASER: f"{EVERY_USER} +scan +del",
}


def make_passwords(folder: Path) -> None:
    """Write new passwords of all users to *folder*, in files that only this user can read."""
    make_private_folder(folder)
    for user in COMMANDS:
        text = secrets.token_urlsafe(32) + "\n"
        replace_file(password_file(folder, user), text, durable=False)


def password_file(folder: Path, user: str) -> Path:
    """Return the file with the password of *user*."""
    return folder / f"{user}.password"


def read_password(folder: Path, user: str) -> str:
    """Return the password of *user*; OSError when the file cannot be read."""
    return password_file(folder, user).read_text(encoding="ascii").strip()


def url_for_user(url: str, user: str, passwords: str | Path) -> str:
    """Return *url* with the credentials of *user*.

    passwords  the folder that `make_passwords` filled. Empty: *url* has credentials, or needs
               none, and is returned as it is.
    """
    if not str(passwords):
        return url
    return url_with_credentials(url, user, read_password(Path(passwords), user))
