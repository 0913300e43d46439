"""Java, and the jars of Apache Kafka: Maven copies them once into `var/apache-kafka/<version>/`.

A folder of that name is whole: it is filled under another name and then renamed, by one process at a time.
`pom.sha256` in it tells which pom it was filled from; another pom fills it anew.
"""

import fcntl
import hashlib
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from embedded.server import ServerUnavailable

CURE = "apt-get install openjdk-17-jre-headless maven (or start a Docker engine)"
OLDEST_JAVA = 17  # Kafka 4 brokers do not start on an older one
APACHE = Path(__file__).with_name("apache")
STORE = Path(__file__).resolve().parents[1] / "var" / "apache-kafka"
MAVEN_SECONDS = 300.0  # 43 MB of jars; 45 s were measured with an empty ~/.m2
JAVA_SECONDS = 20.0
LINES_SHOWN = 8


def java() -> str:
    """Return the path of a Java that is new enough. Raises ServerUnavailable."""
    program = shutil.which("java")
    if program is None:
        raise ServerUnavailable(f"Apache Kafka needs Java {OLDEST_JAVA} or newer, and there is none: {CURE}")
    said = _output([program, "-XshowSettings:properties", "-version"], JAVA_SECONDS)
    version = re.search(r"java\.specification\.version = (?:1\.)?(\d+)", said)
    if version is None:
        raise ServerUnavailable(f"{program} does not tell its version; Apache Kafka needs Java: {CURE}")
    if int(version[1]) < OLDEST_JAVA:
        raise ServerUnavailable(
            f"Apache Kafka needs Java {OLDEST_JAVA} or newer, and {program} is {version[1]}: {CURE}"
        )
    return program


def jars(version: str, store: Path = STORE) -> Path:
    """Return the folder with the jars of that Kafka, filled at first use. Raises ServerUnavailable."""
    store.mkdir(parents=True, exist_ok=True)
    pom_digest = hashlib.sha256((APACHE / "pom.xml").read_bytes()).hexdigest()
    folder = store / version
    with (store / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # whoever holds it is done within MAVEN_SECONDS
        marker = folder / "pom.sha256"
        if marker.exists() and marker.read_text() == pom_digest:
            return folder
        with tempfile.TemporaryDirectory(dir=store, prefix="filling-") as scratch:
            filled = Path(scratch) / version
            _fill(filled, version)
            (filled / marker.name).write_text(pom_digest)
            shutil.rmtree(folder, ignore_errors=True)
            filled.rename(folder)
    return folder


def _fill(folder: Path, version: str) -> None:
    maven = shutil.which("mvn")
    if maven is None:
        raise ServerUnavailable(f"Maven fetches Apache Kafka's jars, and there is none: {CURE}")
    said = _output(
        [
            *(maven, "--quiet", "--batch-mode", "-Dstyle.color=never", "--file", str(APACHE / "pom.xml")),
            *(f"-Dkafka.version={version}", "dependency:copy-dependencies"),
            *("-DincludeScope=runtime", f"-DoutputDirectory={folder}"),
        ],
        MAVEN_SECONDS,
    )
    if not list(folder.glob("kafka_*.jar")):
        raise ServerUnavailable(
            f"Maven could not fetch Apache Kafka {version} (is there a network?):\n{_last_lines(said)}"
        )


def _output(argv: list[str], seconds: float) -> str:
    """Run a program to its end and return what it printed, on either channel. Raises ServerUnavailable."""
    try:
        done = subprocess.run(
            argv,
            check=False,
            timeout=seconds,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except subprocess.TimeoutExpired as error:
        raise ServerUnavailable(f"{argv[0]} was not done after {seconds:g} s: try again.") from error
    except OSError as error:
        raise ServerUnavailable(f"{argv[0]} does not start: {error}.") from error
    return done.stdout.decode(errors="replace")


def _last_lines(said: str) -> str:
    return "\n".join(f"  {line}" for line in said.splitlines()[-LINES_SHOWN:])
