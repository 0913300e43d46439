"""What an agent runs on: browser, system, kind of device and its name.

Browser, system and model are ua-parser's: its list, and its Rust resolver, without which the import fails
(25 to 45 µs a new agent, measured; in pure Python 700). The kind of device is ours, by `_KINDS` and the
platform: ua-parser has none. Where an agent does not say, the answer is None, never one named "Generic".
"""

import re
from dataclasses import dataclass
from functools import cache
from typing import Final

from ua_parser import Device as Model
from ua_parser import Domain, load_lazy_builtins
from ua_parser.regex import Resolver

from collector.platform import LONGEST_AGENT, one_pass, platform_of


@dataclass(frozen=True, slots=True)
class Device:
    """What an agent says of its device; None where it does not.

    browser: ua-parser's family: "Mobile Safari", "Chrome", "Chrome Mobile", "Samsung Internet", "Instagram",
    "curl", ….
    os: "iOS", "Android", "Windows", "macOS", "Linux" or its distribution ("Ubuntu"), "Chrome OS", "tvOS",
    "watchOS", "webOS", "Tizen", "HarmonyOS", …: finer than the platform.
    device: smartphone, feature phone, tablet, desktop, tv, console, wearable, car browser, smart speaker,
    portable media player.
    device_name: what its maker or the agent calls it: "iPhone", "iPad", "Pixel 8", "SM-S918B",
    "PlayStation 5"; None for desktops, and for Android's reduced agents, which call every phone "K".
    """

    browser: str | None
    os: str | None
    device: str | None
    device_name: str | None


# The first pattern found, in any case, names the kind. Makers put the names of tablets and televisions into
# otherwise ordinary Android agents: aft… are Fire TVs, kf… Fire tablets, SM-P, SM-T, SM-X Samsung's tablets.
_KINDS: Final = (
    (r"playstation|nintendo|\bxbox|\bpsp\b|\bouya|retroid|archos gamepad", "console"),
    (r"smart-?tv|apple ?tv|google ?tv|android ?tv|philipstv|opera tv|\btv safari|large screen", "tv"),
    (r"tvos|hbbtv|\broku|crkey|chromecast|netcast|web0s|\bviera|bravia|vizio|shield android", "tv"),
    (r"aquos-?(?:tv|as\b|browser)", "tv"),  # its phones are called so, too
    (
        r"\baft[a-z0-9]{1,8}\b|\bmi ?(?:tv|box)|tizen.*\btv\b|[ _]tv(?:[ /;)_]|$)|beyondtv|nettv|\btivo|kreatv",
        "tv",
    ),
    (r"opera/9\.80 \(linux (?:mips|armv)|\bomi/\d", "tv"),  # Opera's browser for set-top boxes
    (r"brightsign|\(dtv\)|\bdtv_|\bstb[_; ]|_stb_|set-?top|(?:tv|net|smart) ?box|telefunken shell", "tv"),
    (r"homepod|amazon ?echo|\baeo[a-z]{2}\b", "smart speaker"),
    (
        r"watch(?:os|\d|;| )|wear ?os|oculus|\bquest (?:[23]s?|pro)\b|picobrowser|\bvr safari|visionos",
        "wearable",
    ),
    (r"\bsm-r[789]\d\d", "wearable"),
    (r"\btesla/|qtcarbrowser|android automotive", "car browser"),
    (r"\bipod", "portable media player"),
    (r"chromebook|\(pc; ", "desktop"),
    (r"\bipad|playbook|touchpad|hp-tablet|kindle|\bkf[a-z]{2,6}(?: build|[;)])|silk/|/apad\b", "tablet"),
    (r"\btablet[^ ]|\btablet [^p]|opera tablet|\bsm-[ptx]\d|\bgt-[pn][158]\d|nexus (?:7|9|10)\b", "tablet"),
    (
        r"pixel (?:c\b|tablet)|\btb-?\d|\btb[ -]?x\d|lenovotb|xoom|transformer|\w+ ?pad[ _]\d|\bpad\b",
        "tablet",
    ),
    (r"mediapad|matepad|galaxy tab|\btab \w|lifetab|slate \d|[a-z]ipad |walpad|\bmid-?\d{3}", "tablet"),
    (r"kaios|series ?40|j2me|\(java;|(?:maui runtime|spreadtrum); opera mini", "feature phone"),
    (r"lumia|palmsource|palmos|iphone|\bdv\(iph|\bmobi|\(phone; |opera (?:mini|mobi)", "smartphone"),
    # The phones of before, which the words above have not told yet.
    (
        r"up\.browser|wap[ _]browser|/obigo|\bmaui|^docomo/|^j-phone/|^kddi-|jig browser|\bmre/",
        "feature phone",
    ),
)
_kinds_in: Final = one_pass(pattern for pattern, _ in _KINDS)

_KIND_BY_PLATFORM: Final = (  # what is left: the kind of nearly every device with that system
    dict.fromkeys(("windows phone", "windows mobile", "blackberry", "symbian", "bada", "webos"), "smartphone")
    | dict.fromkeys(("firefox os", "meego", "maemo", "sailfish os"), "smartphone")
    | dict.fromkeys(("kaios", "series 40", "java me", "brew"), "feature phone")
    | dict.fromkeys(("windows", "mac", "gnu/linux", "chrome os", "haiku", "beos", "os/2"), "desktop")
    | dict.fromkeys(("freebsd", "openbsd", "netbsd", "dragonfly", "sunos", "aix", "hp-ux"), "desktop")
    | dict.fromkeys(("irix", "amigaos", "morphos", "risc os"), "desktop")
)

_SYSTEM_WORDS: Final = {
    "Mac OS X": "macOS",
    "Mac OS": "macOS",
    "ATV OS X": "tvOS",
    "WatchOS": "watchOS",
    "Web0S": "webOS",
}
_SYSTEM_BY_PLATFORM: Final = {  # for agents of which ua-parser knows no system
    "ios": "iOS",
    "android": "Android",
    "windows": "Windows",
    "mac": "macOS",
    "gnu/linux": "Linux",
    "harmonyos": "HarmonyOS",
    "playstation": "PlayStation",
    "nintendo": "Nintendo",
    "webos": "webOS",
    "tizen": "Tizen",
    "sailfish os": "Sailfish OS",
    "amigaos": "AmigaOS",
    "morphos": "MorphOS",
    "haiku": "Haiku",
    "risc os": "RISC OS",
}

_APPLE: Final = {
    "iPhone": "iPhone",
    "iPad": "iPad",
    "iPod": "iPod touch",
    "Watch": "Apple Watch",
    "AppleTV": "Apple TV",
    "HomePod": "HomePod",
}
_SHORT: Final = 7  # letters of a model: "X30", "8110"
# What ua-parser writes where it finds no model. "K" is what Chrome writes instead of one.
_NO_MODELS: Final = (
    frozenset({"K", "Smartphone", "Tablet", "Feature Phone", "iOS-Device", "Mac", "Kbd", "Touch"})
    | frozenset({"SMART-TV", "Web0S SmartTV", "HbbTV"})
    | frozenset({"Kindle", "Browser"})  # for every Silk and Huawei Browser, which do say their model:
)
_MODEL: Final = re.compile(r"Android [\d.]+; (?:HarmonyOS; )?([A-Z]{2}[\w-]+)(?: Build/|[;)])")


@cache
def _resolver() -> Resolver:
    return Resolver(load_lazy_builtins())


def warm() -> None:
    """Build ua-parser's tables (0.15 s, once a process) now rather than at the first event."""
    _resolver()


def device_of(user_agent: bytes) -> Device:
    """Read an agent's first 1,024 bytes; never raises, whatever they are.

    A crawler has browser and system as it says them but no device: the Nexus 5X of Googlebot's smartphone
    agent was never in anybody's hand. An app that says Darwin and no model may be on a phone or a tablet:
    no device either.
    """
    head = user_agent[:LONGEST_AGENT]
    agent = head.decode("utf-8", errors="replace")
    found = _resolver()(agent, Domain.ALL)
    platform = platform_of(head)
    browser = found.user_agent.family if found.user_agent else None
    system = found.os.family if found.os else _SYSTEM_BY_PLATFORM.get(platform)
    if system == "Android" and platform == "gnu/linux":
        system = "Linux"  # Ubuntu Touch says "like Android"
    system = _SYSTEM_WORDS.get(system, system) if system else None
    if found.device and found.device.brand == "Spider":
        return Device(browser=browser, os=system, device=None, device_name=None)
    name = _name(found.device, agent)
    kind = _kind(head, platform, name)
    return Device(browser=browser, os=system, device=kind, device_name=None if kind == "desktop" else name)


def _kind(agent: bytes, platform: str, name: str | None) -> str | None:
    agent = agent.lower()
    found = _kinds_in(agent)
    if found:
        return _KINDS[min(found)][1]
    if platform == "android":
        # Browsers write "Mobile" on phones only; other apps, and the browsers in them, write neither "Mobile" nor
        # "Safari", but their model.
        if b"applewebkit" in agent and b"safari/" in agent:
            return "tablet"
        return "smartphone" if name else None
    return _KIND_BY_PLATFORM.get(platform)


def _name(model: Model | None, agent: str) -> str | None:
    if model is None or model.model is None:
        return None
    if model.model in _NO_MODELS:
        said = _MODEL.search(agent)
        return said[1] if said else None
    if model.brand == "Apple":  # "iPhone14,5" is an iPhone
        return next((name for start, name in _APPLE.items() if model.model.startswith(start)), model.model)
    if f"moto {model.model}" in agent or f"moto{model.model}" in agent:  # "moto g(7)", "motorola edge 20"
        return f"moto {model.model}" if f"moto {model.model}" in agent else f"moto{model.model}"
    # A short model says little without its maker, whom only the agent knows for sure: "Nokia 8110".
    if model.brand and len(model.model) < _SHORT and model.brand.lower() in agent.lower():
        return f"{model.brand} {model.model}"
    return model.model
