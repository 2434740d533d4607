"""HTML of shared conversations to Markdown: code keeps its lines, its language and every character."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable

from selfee.errors import MissingExtraError

# What an exported message is wrapped in. Text that merely holds tags (a question about HTML) is not markup.
_EXPORTED = re.compile(
    r"\s*<(?P<tag>div|p|pre|ol|ul|h[1-6]|table|blockquote|span)\b[^>]*>.*</(?:div|p|pre|ol|ul|h[1-6]|table|blockquote|span)>\s*",
    re.DOTALL,
)
_CODE_HEAD = re.compile(r"<pre\b[^>]*>(?P<head>(?:(?!</?pre\b|<code\b).)*)<code\b(?P<attributes>[^>]*)>", re.DOTALL)
_LANGUAGE = re.compile(r"\blanguage-([\w+#.-]+)")
_BACKSLASH = "\ue05c"  # stands for one; of Unicode's private use
_TAG = re.compile(r"<[^>]*>")
_COPY_BUTTON = re.compile(r"Copy code|Copy\b")
_NAME_ONLY = re.compile(r"[\w+#.-]{1,20}")
# The button's words where somebody else's converter has left them: "```\npythonCopy code\n", "```python\nCopy code\n".
_LEFT_BUTTON = re.compile(
    r"^(?P<fence>[ \t]{0,9}```)(?P<name>[\w+#.-]{0,20})[ \t]{0,9}\n?(?P<late>[\w+#.-]{0,20}?)Copy code[ \t]{0,9}\n?",
    re.MULTILINE,
)


class MarkupError(Exception):
    """The markup cannot be converted."""


def is_markup(text: str) -> bool:
    """Whether this is a message in HTML, and not a text that shows some."""
    return _EXPORTED.fullmatch(text) is not None


def to_markdown(text: str) -> str:
    """A message as Markdown. Raises MarkupError, and MissingExtraError without the package that converts."""
    if is_markup(text):
        text = _CODE_HEAD.sub(_plain_code_head, text)
        # The converter doubles backslashes, which turns \\frac into \\\\frac: formulas must stay as they were shown.
        text = _converter()(text.replace("\\", _BACKSLASH)).replace(_BACKSLASH, "\\")
    return _LEFT_BUTTON.sub(_without_button, text).strip()


def _plain_code_head(found: re.Match[str]) -> str:
    """``<pre><code>`` without what the page shows above the code: its language, which is kept, and a button."""
    shown = _COPY_BUTTON.sub("", _TAG.sub(" ", found["head"])).strip()
    named = _LANGUAGE.search(found["attributes"])
    language = named[1] if named else shown if _NAME_ONLY.fullmatch(shown) else ""
    return f'<pre><code class="language-{language}">' if language else "<pre><code>"


def _without_button(found: re.Match[str]) -> str:
    return f"{found['fence']}{found['name'] or found['late']}\n"


@functools.cache
def _converter() -> Callable[[str], str]:
    try:
        from html_to_markdown import convert
    except ImportError as error:
        raise MissingExtraError(
            "HTML: needs the package 'html-to-markdown'; install it with: pip install 'selfee[data]'"
        ) from error

    def to_text(html: str) -> str:
        try:
            return convert(html).content or ""  # given options take longer to read than most messages
        except Exception as error:
            raise MarkupError(" ".join(str(error).split())[:200]) from error

    return to_text
