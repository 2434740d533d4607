"""Manual pages are made from the commands: every flag stands in them, and ``man`` reads them without a complaint."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer.main
from tests.cli.test_first_use import ALL, commands

from selfee.cli import man
from selfee.cli.app import app
from selfee.cli.reference import EXIT_CODES, VARIABLES, render_reference

PAGES = dict(man.pages())
REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference" / "cli.md"


def plain(page: str) -> str:
    return page.replace("\\-", "-").replace("\\e", "\\").replace("\\&", "")


def test_every_command_has_a_page() -> None:
    assert set(PAGES) == {"selfee.1", *(f"selfee-{name.replace(' ', '-')}.1" for name in ALL)}


@pytest.mark.parametrize("name", sorted(commands()))
def test_every_flag_and_argument_stands_in_its_page(name: str) -> None:
    page = plain(PAGES[f"selfee-{name.replace(' ', '-')}.1"])
    for parameter in commands()[name].params:
        names = (
            parameter.opts if parameter.param_type_name == "option" else [parameter.metavar or parameter.name.upper()]
        )
        for flag in names:
            assert flag in page, flag
    for code, _ in EXIT_CODES:
        assert f".B {code}\n" in page
    assert ".SH EXAMPLES" in page


def test_variables_stand_in_the_first_page_and_the_reference() -> None:
    reference = render_reference()
    for names, meaning in VARIABLES:
        assert meaning in plain(PAGES["selfee.1"])
        assert meaning in reference
        for name in names:
            assert name in reference


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_page_can_be_read_without_a_warning(name: str) -> None:
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-rLL=78n"],
        input=PAGES[name].encode(),
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert done.stderr == b""
    shown = re.sub(r"\x1b\[[0-9;]*m|.\x08", "", done.stdout.decode())
    assert "NAME" in shown
    assert "EXIT STATUS" in shown


def test_pages_are_written_into_a_folder(tmp_path: Path) -> None:
    man.main([str(tmp_path / "man")])
    assert {path.name for path in (tmp_path / "man").iterdir()} == set(PAGES)


def test_the_reference_has_every_command_and_flag() -> None:
    reference = render_reference()
    whole: object = typer.main.get_command(app)
    assert whole is not None
    for name, command in commands().items():
        assert re.search(rf"^##+ selfee {name}$", reference, re.MULTILINE)
        for option in command.params:
            if option.param_type_name == "option":
                assert f"`{option.opts[0]}`" in reference
