"""What happens in the virtual year, and what monitoring must say of it.

Days count from 0. An event that lasts changes the world until the end of the year, and the version
that is fitted in it knows it. `found_within` counts from the first day to the end of the day whose
look finds it. Outcomes are known when their horizon and three days of grace are over: 17 days for
fraud and propensity, 33 for churn, 45 for credit.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks.year.year_people import DayEffects

YEAR_DAYS = 364
Effect = Callable[[DayEffects, int], None]
"""Changes the effects of a day; the number says how many days the event has lasted."""

SCORES = frozenset({"score", "features"})
HARM = frozenset({"calibration", "risk", "auc"})


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantedEvent:
    """One thing that happens."""

    name: str
    models: tuple[str, ...]
    first_day: int
    last_day: int
    """The last day on which it is unknown to the version in production."""
    lasts: bool = False
    """Whether the effect stays until the end of the year, as the new state of the world."""
    effect: Effect | None = None
    """None: it follows from the versions of the calendar, or from how customers are."""
    kinds: frozenset[str] = frozenset()
    """Kinds of alarms of which one must come; empty: it must stay silent."""
    stream: str = ""
    """A text in the stream of the alarm that finds it."""
    cause: str = ""
    """The beginning of the cause of its incident."""
    host: str = ""
    """The host that the alarm names."""
    found_within: int = 1
    """Days from the first one to the end of the day that finds it, at most."""
    also: frozenset[str] = frozenset()
    """Kinds of alarms that follow from it and are no false alarms."""
    echo_days: int = 3
    """Days after the last one on which alarms are still due to it."""
    look: str = ""
    """The look that can see it, where that is not one of those that every component has."""
    fine: bool = False
    """Whether looks of silence are made every five minutes on its days."""

    @property
    def silent(self) -> bool:
        """Whether nothing may alarm."""
        return not self.kinds

    def explains(self, model: str, kind: str, day: int) -> bool:
        """Whether an alarm of a kind on a day of the year is due to it."""
        due = self.first_day <= day <= self.last_day + self.echo_days
        return due and model in self.models and kind in self.kinds | self.also


def moved(feature: str, shift: float, over_days: int = 1) -> Effect:
    """Return the effect of an input that moves by *shift* standard deviations over some days."""

    def effect(effects: DayEffects, days: int) -> None:
        effects.moved[feature] = shift * min(1.0, (days + 1) / over_days)

    return effect


def changed(**fields: object) -> Effect:
    """Return the effect of setting fields of DayEffects."""

    def effect(effects: DayEffects, _days: int) -> None:
        for name, value in fields.items():
            before = getattr(effects, name)
            if isinstance(value, dict):
                before.update(value)
            else:
                setattr(effects, name, value)

    return effect


LAST = YEAR_DAYS - 1

PLANTED_EVENTS = (
    # The customers.
    PlantedEvent(
        name="a weekly season",
        models=("churn", "fraud", "propensity"),
        first_day=0,
        last_day=LAST,
        stream="usage:data_gb",
    ),
    PlantedEvent(
        name="a monthly billing cycle",
        models=("churn",),
        first_day=0,
        last_day=LAST,
        stream="billing:amount",
    ),
    PlantedEvent(
        name="a campaign: twice the customers for three days",
        models=("propensity",),
        first_day=66,
        last_day=68,
        effect=changed(presence=2.0, campaign=0.2),
    ),
    PlantedEvent(
        name="a price reform moves an input by .1 sd",
        models=("propensity",),
        first_day=40,
        last_day=LAST,
        lasts=True,
        effect=moved("billing:amount", 0.1),
        stream="billing:amount",
    ),
    PlantedEvent(
        name="slow drift: an input moves by .8 sd over 60 days",
        models=("churn",),
        first_day=50,
        last_day=146,
        lasts=True,
        effect=moved("customer:tenure", 0.8, 60),
        kinds=frozenset({"features"}),
        stream="customer:tenure",
        cause="version/churn/1",
        found_within=45,
        also=SCORES | HARM,
        echo_days=40,
    ),
    PlantedEvent(
        name="a source changes: an input moves by .6 sd",
        models=("propensity",),
        first_day=200,
        last_day=204,
        effect=moved("customer:tenure", 0.6),
        kinds=frozenset({"features"}),
        stream="customer:tenure",
        cause="version/propensity/2",
        found_within=3,
        also=SCORES,
    ),
    # What is served.
    PlantedEvent(
        name="euros become cents",
        models=("fraud",),
        first_day=75,
        last_day=77,
        effect=changed(scaled={"card:amount": 100.0}),
        kinds=frozenset({"features"}),
        stream="card:amount",
        cause="version/fraud/1",
        found_within=1,
        also=SCORES | HARM,
        echo_days=28,
    ),
    PlantedEvent(
        name="a view half missing over three models",
        models=("churn", "fraud", "propensity"),
        first_day=93,
        last_day=94,
        effect=changed(missing={"usage": 0.5}),
        kinds=frozenset({"quality"}),
        stream="usage:",
        cause="view/usage",
        found_within=1,
        also=SCORES | HARM,
        echo_days=45,
    ),
    PlantedEvent(
        name="one host has a stale dictionary",
        models=("fraud",),
        first_day=225,
        last_day=226,
        effect=changed(unknown={"card:country": (0.2, 1)}),
        kinds=frozenset({"quality"}),
        stream="unknown card:country",
        cause="view/card",
        host="gateway-2",
        found_within=1,
        also=SCORES,
    ),
    PlantedEvent(
        name="a new category: a tenth of the customers",
        models=("churn",),
        first_day=330,
        last_day=340,
        effect=changed(unknown={"customer:contract": (0.1, -1)}),
        kinds=frozenset({"quality"}),
        stream="unknown customer:contract",
        cause="view/customer",
        found_within=1,
        also=SCORES | HARM,
        echo_days=24,
    ),
    PlantedEvent(
        name="a silent caller: no call from 9 to 15 o'clock",
        models=("fraud",),
        first_day=210,
        last_day=210,
        effect=changed(silent_hours=(9, 15)),
        kinds=frozenset({"silence"}),
        cause="version/fraud/2",
        found_within=1,
        also=frozenset({"score"}),
        fine=True,
    ),
    PlantedEvent(
        name="a piece of the journal is lost",
        models=("credit", "churn", "fraud", "propensity"),
        first_day=230,
        last_day=230,
        effect=changed(lost=0.6),
        kinds=frozenset({"coverage"}),
        cause="host/gateway-1",
        host="gateway-1",
        found_within=1,
        also=HARM | frozenset({"outcomes"}),
        echo_days=50,
    ),
    # The outcomes.
    PlantedEvent(
        name="concept drift without feature drift",
        models=("churn",),
        first_day=180,
        last_day=258,
        lasts=True,
        effect=changed(weights={"customer:tenure": -0.1, "billing:amount": 0.1}),
        kinds=frozenset({"auc", "risk"}),
        cause="version/churn/2",
        found_within=60,
        also=HARM,
        echo_days=40,
    ),
    PlantedEvent(
        name="calibration shifts: log odds + .5",
        models=("credit",),
        first_day=250,
        last_day=LAST,
        lasts=True,
        effect=changed(log_odds=0.5),
        kinds=frozenset({"calibration"}),
        cause="version/credit/3",
        found_within=60,
        also=HARM,
    ),
    PlantedEvent(
        name="late outcomes: six days more",
        models=("fraud",),
        first_day=145,
        last_day=165,
        effect=changed(late_days=6),
        kinds=frozenset({"outcomes"}),
        stream="delays",
        cause="version/fraud/2",
        found_within=25,
        also=HARM,
        echo_days=25,
    ),
    PlantedEvent(
        name="doubled outcomes: half of the reports come twice",
        models=("propensity",),
        first_day=110,
        last_day=125,
        effect=changed(doubled=0.5),
    ),
    PlantedEvent(
        name="corrected outcomes: a third is taken back",
        models=("propensity",),
        first_day=215,
        last_day=226,
        effect=changed(corrected=0.33),
        kinds=frozenset({"outcomes"}),
        stream="reports",
        cause="version/propensity/2",
        found_within=25,
        also=HARM,
        echo_days=25,
    ),
    PlantedEvent(
        name="all labels equal: no fraud is reported",
        models=("fraud",),
        first_day=300,
        last_day=310,
        effect=changed(constant=True),
        kinds=frozenset({"outcomes"}),
        stream="missing",
        cause="version/fraud/3",
        found_within=20,
        also=HARM,
        echo_days=25,
    ),
    # People and money.
    PlantedEvent(
        name="a biased retrain: one group is scored higher",
        models=("credit",),
        first_day=119,
        last_day=202,
        kinds=frozenset({"fairness"}),
        stream="b",
        found_within=60,
        also=HARM | SCORES,
        echo_days=48,
        look="fairness",
    ),
    PlantedEvent(
        name="a biased group that is too small to judge",
        models=("credit",),
        first_day=0,
        last_day=118,
        stream="rare",
        look="fairness",
    ),
    PlantedEvent(
        name="a broken holdout: half of it is acted on",
        models=("propensity",),
        first_day=255,
        last_day=285,
        effect=changed(acts_on_holdout=0.5),
        kinds=frozenset({"holdout"}),
        cause="version/propensity/2",
        found_within=40,
        also=HARM | frozenset({"uplift", "holdout"}),
        echo_days=45,
        look="uplift",
    ),
)


def effects_of(
    events: Iterable[PlantedEvent], model: str, day: int, *, lasting: bool = False
) -> DayEffects:
    """Return what is otherwise with a model on a day of the year.

    lasting  only what stays, which is what a version that is fitted on that day knows.
    """
    effects = DayEffects()
    for event in events:
        if event.effect is None or model not in event.models or day < event.first_day:
            continue
        if event.lasts or (day <= event.last_day and not lasting):
            event.effect(effects, day - event.first_day)
    return effects
