"""`collector links …` as a marketer types it: real processes, real databases, one sentence for every mistake."""

import asyncio
import csv
import io
import json
import os
import pty
import re
import struct
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from types import SimpleNamespace

import pytest
from processes import SCRIPTS

from links.link import Link
from links.store import LinkStore

FILES = Path(__file__).parent / "data" / "links"
IOS, WEB = "https://apps.apple.com/app/id1", "https://shop.example/"


@pytest.fixture
def links(tmp_path):
    """Give a function that runs `collector links` on a database of the test's own."""
    return on_database(f"sqlite:///{tmp_path}/onward.db")


@pytest.fixture(scope="module")
def link_seven(tmp_path_factory):
    """Give the same for a database that has link 7, and that no test changes."""
    run = on_database(f"sqlite:///{tmp_path_factory.mktemp('links')}/onward.db")
    run("import", "-", given='{"id": 7, "slug": "a"}\n')
    yield run
    assert [record["id"] for record in records(run("list", "--json"))] == [7]


def on_database(url):
    own = {"DATABASE_URL": url, "NOT_FOUND_URL": "", "ERROR_PAGE_URL": ""}

    def run(*arguments, given="", environ=None):
        done = subprocess.run(
            [SCRIPTS / "collector", "links", *arguments],
            env=os.environ | own | (environ or {}),
            input=given.encode(),
            capture_output=True,
            check=False,
            timeout=60,
        )
        # Not text=True: that would make \n of the \r\n of CSV.
        return SimpleNamespace(
            returncode=done.returncode, stdout=done.stdout.decode(), stderr=done.stderr.decode()
        )

    return run


def records(done):
    assert (done.returncode, done.stderr) == (0, "")
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_link_is_added_shown_changed_and_removed(links):
    done = links(
        *("add", "--slug", "winter", "--campaign", "Winter [b]Sale", "--target", f"ios={IOS}"),
        *("--target", f"default={WEB}", "--tag", "a", "--tag", "b", "--store-referrer", "--user-id", "9"),
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "link 1 added: /winter, /click/1/go\n", "")
    shown = records(links("show", "winter", "--json"))[0]
    assert (shown["state"], shown["goes"]) == ("live", {"iPhone": IOS, "Android": WEB, "desktop": WEB})
    assert list(shown["link"]) == list(Link.__struct_fields__)
    assert shown["link"]["tags"] == ["a", "b"]

    changed = links(
        "edit", "1", "--target", "android=market://details?id=a.b", "--clear", "tags", "--disabled"
    )
    assert (changed.returncode, changed.stdout) == (0, "link 1 changed\n")
    shown = records(links("show", "1", "--json", environ={"ERROR_PAGE_URL": "https://oops.example/"}))[0]
    assert shown["state"] == "disabled"
    assert set(shown["goes"].values()) == {"https://oops.example/"}
    link = shown["link"]
    assert link["target_url"] == {"ios": IOS, "default": WEB, "android": "market://details?id=a.b"}
    assert (link["tags"], link["campaign"], link["user_id"]) == ([], "Winter [b]Sale", 9)

    assert "goes to\niPhone\t404\n" in links("show", "1").stdout
    assert links("rm", "winter").stdout == "link 1 removed\n"
    assert records(links("list", "--json")) == []
    assert links("add").stdout == "link 2 added: /click/2/go\n", "a number does not come twice"


def test_every_platform_a_link_names_is_shown(links):
    links("add", "--target", f"windows={IOS}", "--target", f"mac={WEB}", "--target", "android=")
    shown = records(links("show", "1", "--json", environ={"NOT_FOUND_URL": "https://none.example/"}))[0]
    none = "https://none.example/"
    assert shown["goes"] == {"iPhone": none, "Android": none, "desktop": IOS, "mac": WEB}


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("add", "--target", "ios"), 2, "target: `ios` is no PLATFORM=URL, as ios=https://….\n"),
        (("add", "--target", "ios=x://y"), 2, "target_url[ios]: scheme `x` is not allowed.\n"),
        (("add", "--slug", "check"), 2, "slug: `check` is taken by a route.\n"),
        (("add", "--mode", "frame"), 2, "mode: Invalid enum value 'frame'.\n"),
        (("add", "--slug", "a"), 1, "slug: `a` is in use by link 7.\n"),
        (("add", "--id", "7"), 1, "id: link 7 is there already: edit that one, or leave the id out.\n"),
        (("edit", "7"), 2, "Say what to change, as --campaign TEXT or --clear FIELD: see --help.\n"),
        (("edit", "7", "--clear", "id"), 2, "id: a link has no such field that could be cleared.\n"),
        (("edit", "7", "--starts-at", "soon"), 2, "starts_at: Invalid RFC3339 encoded datetime.\n"),
        (
            ("edit", "no", "--tag", "x"),
            1,
            "There is no link `no`: `collector links list` shows what there is.\n",
        ),
        (("rm", "7", "no"), 1, "There is no link `no`: `collector links list` shows what there is.\n"),
        (("show", "no"), 1, "There is no link `no`: `collector links list` shows what there is.\n"),
        (
            ("import", "no.csv"),
            2,
            "no.csv cannot be read (No such file or directory): give the name of a file.\n",
        ),
        (
            ("qr", "7", "--base", "go.example"),
            2,
            "--base: `go.example` is no http:// or https:// URL, as https://go.example.\n",
        ),
        (
            ("qr", "7", "--base", "https://go.example", "--svg", "/no/such/folder.svg"),
            1,
            "The picture cannot be written",
        ),
    ],
    ids=str,
)
def test_a_mistake_is_one_sentence_and_changes_nothing(link_seven, arguments, code, sentence):
    done = link_seven(*arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(sentence)
    assert done.stderr.count("\n") == 1


def test_a_database_that_cannot_be_used_is_one_sentence_with_the_cure(links):
    done = links("list", environ={"DATABASE_URL": "postgres://u:secret@127.0.0.1:1/d"})
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.endswith(": see that the database runs and that DATABASE_URL names it.\n")
    assert "secret" not in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_list_can_be_searched_and_read_by_other_programs(links):
    lines = [
        {"id": 1, "slug": "a", "campaign": "Summer\tSale", "target_url": {"ios": IOS, "default": WEB}},
        {"id": 2, "network": "summer.example", "expires_at": "2020-01-01T00:00:00Z"},
        {"id": 3, "tags": ["SUMMER"], "starts_at": "2999-01-01T00:00:00Z"},
        {"id": 4, "campaign": "Winter"},
    ]
    links("import", "-", given="".join(f"{json.dumps(line)}\n" for line in lines))
    assert links("list", "summer").stdout.splitlines() == [
        "id\tslug\tstate\tcampaign\tnetwork\ttargets",
        f"1\ta\tlive\tSummer Sale\t\tios → {IOS}, default → {WEB}",
        "2\t\texpired\t\tsummer.example\t",
        "3\t\tnot started\t\t\t",
    ]
    assert [record["id"] for record in records(links("list", "--json"))] == [1, 2, 3, 4]


def test_an_import_is_all_or_nothing_unless_told_otherwise(links):
    wrong = str(FILES / "wrong.csv")
    done = links("import", wrong)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == f"{wrong}:2: slug: `check` is taken by a route"
    assert done.stderr.splitlines()[-1].startswith("6 of 7 links are wrong; nothing was imported: ")
    assert len(done.stderr.splitlines()) == 7
    assert records(links("list", "--json")) == []

    rehearsal = links("import", wrong, "--skip-wrong", "--dry-run")
    assert rehearsal.stdout == "1 links would be imported (1 new, 0 replaced, 6 wrong ones skipped)\n"
    assert records(links("list", "--json")) == []

    done = links("import", wrong, "--skip-wrong")
    assert (done.returncode, len(done.stderr.splitlines())) == (0, 6)
    assert done.stdout == "1 links imported (1 new, 0 replaced, 6 wrong ones skipped)\n"
    assert [record["slug"] for record in records(links("list", "--json"))] == ["f"]
    assert links("import", str(FILES / "unreadable.yml")).returncode == 1


def test_what_is_wrong_only_for_the_database_is_said_with_its_row(links):
    links("import", "-", given='{"id": 1, "slug": "a"}\n{"id": 2, "slug": "b"}\n')
    lines = '{"id": 1, "slug": "b"}\n\n{"id": 2, "slug": "check"}\n{"id": 3, "slug": "b"}\n{"id": 3}\n'
    for dry in ((), ("--dry-run",)):
        done = links("import", "-", *dry, given=lines)
        assert (done.returncode, done.stderr.splitlines()[:-1]) == (
            1,
            [
                "-:1: slug: `b` is in use by link 2",
                "-:3: slug: `check` is taken by a route",
                "-:4: slug: `b` is in use by link 2",
                "-:5: id: link 3 is given twice",
            ],
        )
    # Links that swap their slugs are fine; a new one has no number yet, an old one is found by its slug.
    lines = '{"id": 1, "slug": "b"}\n{"id": 2, "slug": "a"}\n{"slug": "c"}\n'
    assert links("import", "-", given=lines).stdout == "3 links imported (1 new, 2 replaced)\n"
    assert links("import", "-", given=lines).stdout == "3 links imported (0 new, 3 replaced)\n"
    assert [(record["id"], record["slug"]) for record in records(links("list", "--json"))] == [
        (1, "b"),
        (2, "a"),
        (3, "c"),
    ]


def test_firebase_links_are_taken_over_once(links):
    for counts in ("(3 new, 0 replaced)", "(0 new, 3 replaced)"):
        assert links("import", str(FILES / "takeout.csv")).stdout == f"3 links imported {counts}\n"
    goes = records(links("show", "m9Mm", "--json"))[0]["goes"]
    assert goes == {
        "iPhone": "https://apps.apple.com/app/id123456789?pt=118&ct=spring&mt=8",
        "Android": "https://play.google.com/store/apps/details?id=com.example.android",
        "desktop": "https://example.web.app/welcome",
    }


def test_an_export_is_imported_as_it_was(links, tmp_path):
    links("import", str(FILES / "spreadsheet.csv"))
    before = records(links("list", "--json"))
    assert len(before) == 3
    for form, name in (((), "unnamed"), (("--csv",), "a.csv")):
        exported = links("export", *form).stdout
        (tmp_path / name).write_bytes(exported.encode())
        assert links("rm", *(str(record["id"]) for record in before)).returncode == 0
        done = links("import", str(tmp_path / name))
        assert done.stdout == "3 links imported (3 new, 0 replaced)\n", done.stderr
        assert records(links("list", "--json")) == before
    rows = list(csv.DictReader(io.StringIO(exported, newline="")))
    assert rows[0]["target_url.ios"] == IOS


def test_a_qr_code_leads_to_the_link_and_says_so(links, tmp_path):
    links("import", "-", given='{"id": 7, "slug": "winter"}\n{"id": 8}\n')
    drawn = links("qr", "7", "--base", "https://go.example/")
    assert drawn.stdout.splitlines()[-1] == "https://go.example/winter?qr=1"
    assert len(drawn.stdout.splitlines()) > 10
    svg, png = tmp_path / "a.svg", tmp_path / "a.png"
    done = links("qr", "8", "--base", "http://localhost:8080", "--svg", str(svg), "--png", str(png))
    assert done.stdout == "http://localhost:8080/click/8/go?qr=1\n"
    assert ET.parse(svg).getroot().tag == "{http://www.w3.org/2000/svg}svg"  # noqa: S314 (our own picture)
    header = png.read_bytes()
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", header[16:24])
    assert width == height >= 290


def test_a_migration_is_a_release_step(links):
    assert links("migrate").stdout == "the tables of links are at step 0002 (before: none)\n"
    assert links("migrate").stdout == "the tables of links are at step 0002 (as before)\n"


def test_a_terminal_gets_tables_and_a_progress_bar(links, tmp_path):
    links(
        "import", "-", given='{"id": 7, "campaign": "[red]x", "target_url": {"ios": "https://a.example/"}}\n'
    )
    seen = {}
    for arguments in (("list",), ("import", str(FILES / "original.json"))):
        here, there = pty.openpty()
        with subprocess.Popen(
            [SCRIPTS / "collector", "links", *arguments],
            env=os.environ
            | {"DATABASE_URL": f"sqlite:///{tmp_path}/onward.db", "COLUMNS": "150", "TERM": "xterm"},
            stdout=there,
            stderr=there,
        ) as process:
            os.close(there)
            text = b""
            while chunk := _read(here):
                text += chunk
            assert process.wait(timeout=30) == 0
        os.close(here)
        seen[arguments[0]] = text.decode()
    assert "[red]x" in seen["list"]
    assert "┃" in seen["list"]
    assert "saving" in seen["import"]
    assert "1 links imported" in seen["import"]


def _read(terminal):
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux's way of saying that the other side is gone
        return b""


async def test_a_row_that_is_no_link_is_not_left_out_in_silence(links, tmp_path):
    links("import", "-", given='{"id": 7}\n{"id": 8}\n')
    store = LinkStore(f"sqlite:///{tmp_path}/onward.db")
    async with store._engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE links SET tags = '7' WHERE id = 8")
    await store.close()
    done = await asyncio.to_thread(links, "export")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "1 rows in the database are no links: mend or remove 8.\n"
    assert links("rm", "8").returncode == 1


def test_links_are_kept_in_postgres_too(links, postgres_url):
    environ = {"DATABASE_URL": postgres_url.replace("postgresql://", "postgres://")}
    links("import", str(FILES / "spreadsheet.csv"), environ=environ)
    exported = links("export", environ=environ).stdout
    assert (
        links("import", "-", given=exported, environ=environ).stdout
        == "3 links imported (0 new, 3 replaced)\n"
    )
    assert links("rm", "a", "b", "c", environ=environ).returncode == 0


def test_the_commands_of_the_page_for_marketers_work(tmp_path):
    page = (FILES.parents[2] / "docs" / "links.md").read_text("utf-8")
    script = "\n".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL))
    assert script.count("collector links") > 20
    done = subprocess.run(
        ["sh", "-eu", "-c", script],
        cwd=tmp_path,
        env=os.environ
        | {"PATH": f"{SCRIPTS}:{os.environ['PATH']}", "DATABASE_URL": f"sqlite:///{tmp_path}/o.db"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("link 1 added: /summer, /click/1/go\n")
    assert "https://go.example.com/autumn?qr=1\n" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} > {"autumn.svg", "46.png", "backup.csv"}
    for field in Link.__struct_fields__:
        assert f"`{field}`" in page
