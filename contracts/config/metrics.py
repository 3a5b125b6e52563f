"""Where each process serves its metrics and its health, and how long its main loop may stand still."""

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from contracts.config.section import Name, Section
from contracts.config.yaml_file import SettingsError

Process = Literal["stream", "trainer", "replica", "collector", "archive"]
PROCESSES: tuple[Process, ...] = get_args(Process)


def host_of(host: str) -> str:
    """A name or an address to listen at, as it was given.

    Raises:
        ValueError: it cannot be one; empty, which sockets take for all addresses, included.

    """
    try:
        host.encode("idna")
    except UnicodeError:
        host = ""
    if not host or not host.isprintable():
        raise ValueError("this is no name or address of a machine")
    return host


Port = Annotated[int, Field(ge=0, le=65535)]


class MetricsPorts(Section):
    """The port of each kind of process, so that one settings file serves all of a host; 0: any free port.

    Of several processes of one kind on a host, each but one is given its own by `--metrics-port`.
    """

    stream: Port = 0
    trainer: Port = 0
    replica: Port = 0
    collector: Port = 0
    archive: Port = 0

    @model_validator(mode="after")
    def _differ(self) -> "MetricsPorts":
        taken: dict[int, str] = {}
        for process in PROCESSES:
            port: int = getattr(self, process)
            other = taken.setdefault(port, process)
            if port and other != process:
                raise ValueError(f"{other} and {process} both have port {port}")
        return self


class MetricsSettings(Section):
    """`/metrics`, `/healthz` and `/readyz` of every process."""

    # They have neither encryption nor a token: any other address is for a closed network.
    host: Annotated[Name, AfterValidator(host_of)] = "127.0.0.1"
    ports: MetricsPorts = MetricsPorts()
    stuck_after_s: Annotated[float, Field(gt=0)] = 120.0  # without a step of the main loop, /healthz answers 503

    def port_of(self, process: Process) -> int:
        """Where a kind of process serves; 0: on any free port.

        >>> MetricsSettings(ports=MetricsPorts(trainer=9102)).port_of("trainer")
        9102
        """
        port: int = getattr(self.ports, process)
        return port

    def overridden(self, process: Process, host: str | None, port: int | None) -> "MetricsSettings":
        """With what the command line of one process says in place of the settings; None: it says nothing.

        The other processes' ports go: they are not this process's business, and may not clash with its own.

        >>> settings = MetricsSettings(ports=MetricsPorts(trainer=9102, stream=9101))
        >>> settings.overridden("stream", None, 9102).port_of("stream"), settings.overridden("stream", None, None).host
        (9102, '127.0.0.1')

        Raises:
            SettingsError: `host` is none.

        """
        try:
            host = self.host if host is None else host_of(host)
        except ValueError as error:
            raise SettingsError(f"--metrics-host: {error}.") from None
        ports = MetricsPorts(**{process: self.port_of(process) if port is None else port})
        return self.model_copy(update={"ports": ports, "host": host})
