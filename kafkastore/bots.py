"""Who is no person: crawlers, link previews, AI's readers, monitors, HTTP libraries; by agent and signals.

Four lists are searched in one pass and the most particular hit counts: our own (`_OWN`: what the libraries
miss or name unclearly), crawler-user-agents' (1,500 patterns with names and tags), the words and forms that no
person's browser has (`_WORDS`: "bot", "crawl", a URL), and crawlerdetect's (1,450 patterns, neither names nor
tags). `_PEOPLE` is struck out of an agent first: phones and apps whose names look like a bot's. What the lists
find, and whom they take for a bot wrongly, is measured in docs/bots.md.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

from crawlerdetect.providers.crawlers import data as CRAWLERDETECT_DATA  # noqa: N812 (a table, as the other)
from crawleruseragents import CRAWLER_USER_AGENTS_DATA

from collector.platform import LONGEST_AGENT, one_pass


@dataclass(frozen=True, slots=True)
class Bot:
    """Why an event is not a person's.

    name: "Googlebot", "Twitterbot", "curl", …; None where only the behaviour or a general word tells.
    class_: search, preview (a link unfurled in a chat or feed), ai, tool (libraries, SEO, advertising, feed
    readers, archives, scanners, and all the rest), monitor, headless (a browser driven by a program),
    prefetch (a person's browser, but nobody looked), probe (a HEAD request).
    reason: `list:<pattern>`, `empty_agent`, `head`, `prefetch` or `headless`.
    """

    name: str | None
    class_: str
    reason: str


# (pattern, name, class): what the library lacks, or lists under another's name or an unexpected tag.
_OWN: Final = (
    (r"facebookexternalhit/1\.1 Facebot Twitterbot/1\.0", "iMessage", "preview"),  # claims to be two others
    (r"kakaotalk-scrap", "KakaoTalk", "preview"),
    (r"line-poker", "LINE", "preview"),
    (r"WeChatShareExtension", "WeChat", "preview"),
    (r"Bluesky Cardyb", "Bluesky", "preview"),
    (r"\(compatible; Rocket\.Chat", "Rocket.Chat", "preview"),
    # Office asks for a link itself before it hands it to the browser: the person's click comes after.
    (r"^Mozilla/4\.0 \(compatible; ms-office|^Microsoft Office", "Microsoft Office", "preview"),
    (r"\(compatible; YandexImages", "YandexImages", "search"),
    (r"Amazonbot", "Amazonbot", "ai"),
    (r"Diffbot", "Diffbot", "ai"),
    (r"ImagesiftBot", "ImagesiftBot", "ai"),
    (r"PanguBot", "PanguBot", "ai"),
    (r"Timpibot", "Timpibot", "ai"),
    (r"YouBot", "YouBot", "ai"),
    (r"\bCypress/", "Cypress", "headless"),
    (r"PowerShell/", "PowerShell", "tool"),
    # What watches and measures the web, and says neither so nor where it comes from.
    (r"[Cc]loudflare", "Cloudflare", "monitor"),
    (r"Datadog/", "Datadog", "monitor"),
    (r"Dynatrace", "Dynatrace", "monitor"),
    (r"Functionize", "Functionize", "headless"),
    (r"^meta-externalads", "meta-externalads", "tool"),
    (r"^facebookexternalua", "facebookexternalua", "preview"),
    (r"^Yahoo:LinkExpander", "Yahoo:LinkExpander", "preview"),
    (r"CopyvioDetector", "CopyvioDetector", "tool"),
    (r"TagInspector/", "TagInspector", "tool"),
)

# Words that no person's browser has, by class; the least particular, so asked last and in this order. Their
# bots are called what they call themselves.
_VERSION: Final = r"(?:[/-]|$| v?\d)"
_WORDS: Final = {
    "preview": (r"(?:link|url|web|site|card|rich)[ _-]?preview|unfurl|opengraph|oembed|embedder",),
    "ai": (r"(?:gpt|llm|\bai)[_-]?(?:bot|agent|crawler|fetcher|searchbot|user)\b",),
    "monitor": (r"uptime|monitor(?:ing|s|[^a-z]|$)|health-?check|^kube-probe|^googlehc/|\bping(?:er|dom)",),
    "headless": (r"headless|webdriver|\bjsdom/|testcafe",),
    "tool": (
        r"^(?:java|kotlin|ktor|jersey|vert\.x|reactornetty|scalaj|akka|spray|clj|jakarta)" + _VERSION,
        r"^(?:python|perl|lwp|libwww|ruby|rest-client|faraday|typhoeus|php|guzzle\w*|symfony)" + _VERSION,
        r"^(?:node|nodejs|npm|deno|bun|undici|got|needle|superagent|dart|go|fasthttp|hackney|lua)" + _VERSION,
        r"^(?:rust|reqwest|ureq|hyper|isahc|attohttpc|restsharp|\.net|winhttp|wininet)" + _VERSION,
        r"^(?:lib)?curl\b|^(?:aria2|axel|lftp|libfetch|debian apt|libdnf|git|rclone)\b",
        r"^(?:postmanruntime|insomnia|bruno|hoppscotch|xh|apachebench|siege|wrk|hey|k6|vegeta|jmeter)[/ -]",
        r"^(?:nmap|masscan|nuclei|ffuf|gobuster|wfuzz|hydra)\b|nmap scripting",
        r"bots?(?:[^a-z]|$)|robot|crawl|spider|scrap(?:e|ing)|slurp|harvest|\bfetch(?:er|ing)?\b",
        r"(?:link|url|site|page|feed|web|seo|domain|html)[ _-]?(?:check|valid|scan|analy|audit|index)",
        r"validator|checker|scanner|analy[sz]er|archiver|indexer|extractor|resolver|parser|importer",
        r"thumbnail|screenshot|favicon|sitemap|webhook|aggregator|podcast|download[ _-]?manager",
        r"\brss\b|feed[ _-]?(?:fetch|pars|read|burn|demon)|\bfeeds?/",
        r"\bgoogle[ -](?:page ?speed|firebase|calendar|http|hotel|site|read|search(?:by|-by))",
        r"http[_ -]?(?:client|request|lib|fetch)|^http[_-]?\w*/|web[ _-]?client",
        r"https?://|\bwww\.[a-z0-9-]+\.[a-z]|[a-z0-9._-]+@[a-z0-9-]+\.[a-z]{2,}",
        r"^[a-z0-9-]+\.(?:com|net|org|info|ru|de|fr|eu|ai)(?:[/; ]|$)",
        # Forms. Who names one thing and nothing around it is no browser; nor who is "compatible" with nothing,
        # or puts a name where browsers end their bracket; nor who writes code.
        r"^[a-z][\w.+-]*(?:[/ ]v?[\d.]+)?$",
        r"^mozilla/[45]\.0 \(compatible[;)]",
        r"khtml, like gecko; ",
        r"\bgoogle-[a-z]|^google[a-z-]|-google/",
        r"\$\{jndi|<\?|\{\{|/etc/passwd",
    ),
}
_WORD: Final = rb"(?!v\d)[A-Za-z][\w.!-]{1,39}"
_calls_itself: Final = re.compile(
    rb"(?:^|compatible; ?)(?!Mozilla|Opera|MSIE|compatible)(%b(?: %b){0,2})" % (_WORD, _WORD)
)

# What is struck out of an agent before the lists count: people whom they would take for bots.
_APP: Final = rb"(?:Mobile|Safari)/[\w.]+ (?:[\w.]+/[\w.]+ ){0,4}"  # an app's browser names the app last
_PEOPLE: Final = (
    # A phone's model and build: "CUBOT X30", "M bot 54", "HTC Butterfly", and "AP3A.240617.008", which the
    # library lists though every phone with that Android says it.
    rb"(?i:Android [\d.]+; ?(?:U; )?(?:[a-z]{2}[-_][a-z]{2} ?; ?)?[^;()]+)",
    rb"(?i:\bcubot\w*)",  # the same where an app writes it elsewhere
    rb"ViewSonic|^DESAY TS\d+/",
    rb"^(?:iPhone|iPad|iPod|smarttv_)[\w.-]*$",  # all that some apps say
    # Browsers that are compatible with another, or with nothing.
    rb"(?i:compatible; ?(?:MSIE|Konqueror|iCab|OmniWeb|Opera|WebTV|NetPositive|ANTFresco|IBrowse|AmigaVoyager))",
    rb"(?i:compatible; ?(?:Gecko|Polaris|NetFront|Linux|U;|AOL|Win|Teleca|Lotus|Dillo|OffByOne))",
    # Apps with the name of their maker's bot.
    _APP + rb"(?:WhatsApp|Viber|Tumblr|Goodreads|Bluesky|Feedly|Flipboard|Hatena|Daum)\b[/\w.]*",
    _APP + rb"(?:Blackboard|Disqus|Asana|Notion|Lemmy|Podimo|upday)\b[/\w.]*",
    rb"\bMetaIAB \w+",  # the browser inside Facebook and Instagram
    rb"\b(?:Notion|Code|Trae|Asana|Tumblr)/[\w.-]+ (?=[^()]*Electron/)",  # programs on desks
    rb"\bSonic Slack_SSB",
    rb"\bSogou(?:MSE|MobileBrowser|Search)[\w/.,]*",  # browsers
    rb"Opera M(?:ini|obi)/[\w./-]+",  # their numbers may read "008/"
    rb"https?://(?:www\.)?(?:bsalsa|[Qq]t[Ww]eb)[\w./]*",  # old browsers that say where they come from
)
_people: Final = re.compile(b"|".join(_PEOPLE))

# Of crawlerdetect's patterns: what people's devices and programs are called, and words for which ours are narrower.
_TOO_WIDE: Final = frozenset(
    {"Astute", "Demon", "Instapaper", "Octopus", "OPPO A33", "QQDownload", "speedy", r"voyager\/", "Webster"}
    | {
        "Zeus ",
        "libwww",
        r"Chirp\/",
        r"^Mail\/",
        "Mojeek",
        r"Slack\/",
        r"Word\/",
        r"Excel\/",
        r"PowerPoint\/",
    }
)

_CLASS_BY_TAG: Final = {  # the library's tags; of several, the first in this order
    "ai-crawler": "ai",
    "social-preview": "preview",
    "search-engine": "search",
    "monitoring": "monitor",
    "browser-automation": "headless",
}
_NAMES: Final = {  # where the pattern is no name
    r"[wW]get": "Wget",
    r"dotbot": "DotBot",
    r"httpx": "python-httpx",
    r"pinterest\.com\/bot": "Pinterestbot",
    r"sindresorhus\/got": "got",
    r"yandex\.com\/bots": "YandexBot",
    r"[cC]laude[bB]ot": "ClaudeBot",
}


def bot_of(user_agent: bytes, signals: frozenset[str]) -> Bot | None:
    """Return why the event is a bot's, or None for a person's; never raises, whatever the bytes are.

    Signals are the event's `signals`; those of `head`, `prefetch` and `headless` are looked at. What the
    request was comes first: nobody looks at the answer to a HEAD or a prefetch, so these are `probe` and
    `prefetch` whoever sent them, though a listed bot keeps its name. Then the lists, then `headless`, then
    an agent that is empty or "-".
    """
    agent = user_agent[:LONGEST_AGENT]
    listed = _listed(agent)
    name = listed.name if listed else None
    if "head" in signals:
        return Bot(name=name, class_="probe", reason="head")
    if "prefetch" in signals:
        return Bot(name=name, class_="prefetch", reason="prefetch")
    if listed:
        return listed
    if "headless" in signals:
        return Bot(name=None, class_="headless", reason="headless")
    if not agent.strip(b" \t-"):
        return Bot(name=None, class_="tool", reason="empty_agent")
    return None


def _listed(agent: bytes) -> Bot | None:
    found = _bots_in(agent)
    if not found:
        return None  # nearly everybody ends here
    struck, times = _people.subn(b"", agent)
    if times and not (found := _bots_in(struck)):
        return None
    bot = _LISTS[min(found)][1]  # they stand in order: the most particular first
    if bot.name is None and (called := _calls_itself.search(agent)):
        return replace(bot, name=called[1].decode("ascii"))
    return bot


def _library() -> Iterator[tuple[str, Bot]]:
    listed: list[dict[str, Any]] = CRAWLER_USER_AGENTS_DATA
    # The longest pattern is the most particular; that somebody uses an HTTP library is the least.
    for crawler in sorted(listed, key=lambda one: ("http-library" in one["tags"], -len(one["pattern"]))):
        pattern: str = crawler["pattern"]
        class_ = next((word for tag, word in _CLASS_BY_TAG.items() if tag in crawler["tags"]), "tool")
        yield pattern, Bot(_name(pattern, crawler["instances"]), class_, f"list:{pattern}")


def _name(pattern: str, instances: list[str]) -> str:
    if pattern in _NAMES:
        return _NAMES[pattern]
    for instance in instances:
        if seen := re.search(pattern, instance):
            return seen[0].strip(" /;()@")
    return re.sub(r"\\(.)", r"\1", pattern).strip(" ^$/;()")


def _in_order() -> Iterator[tuple[str, Bot]]:
    for pattern, name, class_ in _OWN:
        yield pattern, Bot(name, class_, f"list:{pattern}")
    yield from _library()
    for class_, patterns in _WORDS.items():
        for pattern in patterns:
            yield f"(?i){pattern}", Bot(None, class_, f"list:{pattern}")
    for pattern in CRAWLERDETECT_DATA:
        # RE2 has no (?!…): one pattern.
        if pattern not in _TOO_WIDE and "(bot|crawl|" not in pattern and "(?!" not in pattern:
            yield f"(?i){pattern}", Bot(None, "tool", f"list:{pattern}")


_LISTS: Final = tuple(_in_order())
_bots_in: Final = one_pass(pattern for pattern, _ in _LISTS)
