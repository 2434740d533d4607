"""Templates written by an attacker: inert or refused, and never slow or large."""

from __future__ import annotations

import resource
import time

import pytest

from selfee.errors import BadFileError
from selfee.llama.jinja_sandbox import MAX_TEMPLATE, compile_template

MESSAGES = [{"role": "user", "content": "Hi"}]
NAMES = {"bos_token": "<s>", "eos_token": "</s>"}


def run(source: str) -> str:
    return compile_template(source)(MESSAGES, NAMES)


@pytest.mark.parametrize(
    "source",
    ["{{ ''.__class__ }}", "{{ messages.__class__ }}", "{{ self.__dict__ }}", "{{ nothing }}", "{{ messages[9] }}"],
)
def test_reaching_for_python_gives_nothing(source: str) -> None:
    assert run(source) == ""


SAME = "{% set x = 'ab' %}"
NEST = "{% set x = [1] %}" + "{% set x = [x, x, x, x] %}" * 40


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ range.__self__ }}{{ namespace.__init__() }}",
        "{{ raise_exception.__globals__['x'] }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'content': 'x'}) }}",
        "{{ messages[0].content.encode() }}",
        "{% include 'x' %}",
        "{% import 'os' as os %}",
        "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
        "{% for a in range(9999) %}{% for b in range(9999) %}aaaaaaaaaaaaaaaaaaaaaa{% endfor %}{% endfor %}",
        "{% for a in messages recursive %}{{ loop(messages) }}{% endfor %}",
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
        "{{ 'a' * 1000000000 }}",
        "{{ 10 ** 1000000000 }}",
        "{% set n = namespace(x=3) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}{{ n.x }}",
        SAME + "{% set x = x ~ x %}" * 60 + "{{ x }}",
        SAME + "{% set x = x + x %}" * 60 + "{{ x }}",
        SAME + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60 + "{{ x }}",
        SAME + "{% set x = [x, x] | join %}" * 60 + "{{ x }}",
        SAME + "{% set x = x.replace('a', x) %}" * 60 + "{{ x }}",
        SAME + "{% set x = x | replace('a', x) %}" * 60 + "{{ x }}",
        SAME + "{% filter replace('a', 'aa') %}" * 15 + "{{ 'a' * 1000000 }}" + "{% endfilter %}" * 15,
        "{% set x = [1] %}" + "{% set x = x + x %}" * 60,
        NEST + "{{ x }}",
        NEST + "{{ x | tojson }}",
        NEST + "{{ x == [x] }}",
        "{{ '%999999999d' % 1 }}",
        "{{ '{:>999999999}'.format(1) }}",
        "{{ 'a'.center(999999999) }}",
        "{{ 'a'.ljust(999999999) }}",
        "{{ 'a' | center(999999999) }}",
        "{{ 'a' | indent(999999999) }}",
        "{{ 'a'.join(range(99999999)) }}",
        "{{ range(99999999) | list }}",
        "{{ lipsum(1000) }}",
        "{{" + "(" * 5000 + "1" + ")" * 5000 + "}}",
        "{{ 1" + " + 1" * 30000 + "}}",
        "{% if x %}" * 3000 + "{% endif %}" * 3000,
        "{{ 1 / 0 }}",
        "{{ nothing.at.all }}",
        "{% if",
        "{{ 'x' | no_such_filter }}",
        " " * (MAX_TEMPLATE + 1),
    ],
)
def test_a_hostile_template_is_refused_at_once(source: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    with pytest.raises(BadFileError, match=r"tokenizer\.chat_template: .*guided mode"):
        run(source)
    assert time.process_time() - started < 6
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # KiB


def test_what_honest_templates_use_works() -> None:
    source = (
        "{%- set ns = namespace(found=false, last=messages|length - 1) -%}\n"
        "{%- macro show(m) %}{{ m.role | upper }}:{{ m['content'] | trim }}{% endmacro -%}\n"
        "{%- for m in messages if m.role == 'user' -%}\n"
        "{%- if loop.index0 == ns.last and not ns.found %}{% set ns.found = true %}{% endif -%}\n"
        "{{ show(m) }}{{ '-' * 3 }}{{ (loop.index % 2) ~ '/' ~ loop.length }}\n"
        "{%- if m.content is string and 'H' in m.content and m.content.startswith('H') %}!{% break %}{% endif -%}\n"
        "{%- endfor -%}\n"
        "{{ [1, 'é'] | tojson }}{{ ns.found }}{{ messages[::-1][0].content.split('i')[0] }}{{ tools is none }}"
        "{{ dict is defined }}{{ bos_token }}"
    )
    assert run(source) == 'USER:Hi---1/1![1, "é"]TrueHTrueFalse<s>'


def test_a_long_chat_is_no_attack() -> None:
    source = "{% for m in messages %}{{ '<' + m.role + '>' + m.content }}{% endfor %}" + "{# #}" * 1000
    messages = [{"role": "user", "content": "x" * 20_000}] * 400
    assert len(compile_template(source)(messages, NAMES)) == 400 * 20_006
