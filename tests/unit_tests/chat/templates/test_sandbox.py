"""Ordinary templates render as with jinja2; hostile ones soon end in an error."""

from __future__ import annotations

import itertools
import time

import jinja2
import pytest

from langchain_petals.chat.templates import ChatTemplate
from langchain_petals.chat.templates.meter import Meter, TemplateLimitError
from langchain_petals.chat.templates.sandbox import LONGEST_SOURCE, SandboxedTemplate
from langchain_petals.errors import InvalidRequestError

PEEPING = {
    "class": "{{ ''.__class__.__mro__ }}",
    "subscript": "{{ ''['__class__'] }}",
    "attr filter": "{{ ''|attr('__class__') }}",
    "map attribute": "{{ ['']|map(attribute='__class__')|list }}",
    "format": "{{ '{0.__class__}'.format('') }}",
    "format_map": "{{ '{a.__class__}'.format_map({'a': ''}) }}",
    "macro's function": "{% macro m() %}{% endmacro %}{{ m._func }}",
    "self": "{{ self._TemplateReference__context }}",
    "namespace": "{{ namespace().__init__.__globals__ }}",
    "function": "{{ raise_exception.__globals__ }}",
    "cycler": "{{ cycler.__init__.__globals__.os }}",
    "import": "{% import 'os' as os %}",
    "include": "{% include '/etc/passwd' %}",
    "extends": "{% extends 'base' %}",
    "append": "{{ messages.append(1) }}",
    "update": "{{ messages[0].update({'role': 'system'}) }}",
    "bytes": "{{ 'a'.encode('utf8').hex() }}",
    "private variables": "{{ 'x' | attr('the meter') }}{{ messages.__init__ }}",
}

ENDLESS = {
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "filtered loops": "{% for i in range(99999) %}{% for j in range(99999) if j < 0 %}{% endfor %}{% endfor %}",
    "a recursive loop": (
        "{% for i in range(999) recursive %}{% if loop.depth < 9 %}{{ loop(range(999)) }}{% endif %}{% endfor %}"
    ),
    "a recursive macro": "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
    "a branching macro": "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "a growing list": "{% set l = [1] %}{% for x in l %}{% set _ = l.append(1) %}{% endfor %}",
    "mapped filters": "{% for i in range(99999) %}{{ range(99999)|map('string')|list|length }}{% endfor %}",
    "sorting": "{% for i in range(9999) %}{% set x = range(99999)|sort(reverse=true) %}{% endfor %}",
    "searching": "{% set a = 'a'*4000000 %}{% for i in range(99999) %}{{ a.count('aaaaaaab') }}{% endfor %}",
    "searching from behind": "{% set a = 'a'*1000000 %}{{ a.rfind('b' + 'a'*500000) }}",
    "stripping": "{% set a = 'a'*1000000 %}{{ a.strip('b'*500000 + 'a')|length }}",
    "comparing": (
        "{% set a = 'a'*5000000 %}{% set b = 'a'*5000000 %}{% for i in range(99999) %}{{ a == b }}{% endfor %}"
    ),
    "containing": "{% set a = 'a'*5000000 %}{% for i in range(99999) %}{{ 'ab' in a }}{% endfor %}",
    "testing": "{% set a = 'a'*5000000 %}{% for i in range(99999) %}{{ a is in [a ~ 'b'] }}{% endfor %}",
    "searching a long text for a long text": "{% set a = 'a'*200000 %}{{ a.rfind('b' + 'a'*100000) }}",
    "selecting among characters": "{{ ('a'*200000)|select('none')|list }}",
    "grouping characters": "{{ ('a'*200000)|groupby('x') }}",
    "sorting characters": "{{ ('a'*200000)|sort }}",
    "adding lists": "{% for i in range(99999) %}{{ ([[0]]*15000)|sum(start=[])|length }}{% endfor %}",
    "a long attribute": "{{ ('a,'*9999).split(',')|sort(attribute=['0']|batch(9999, '0')|first|join('.')) }}",
    "a long attribute to join": "{{ (['aa']*9999)|join(', ', ('0.'*9999) ~ '0') }}",
    "colliding numbers in a dictionary": "{{ {}.fromkeys(range(0, 2305843009213693951*99999, 2305843009213693951)) }}",
    "colliding numbers in a filter": "{{ range(0, 2305843009213693951*99999, 2305843009213693951)|unique|list }}",
    "many slices": "{{ [1]|slice(99999999)|list }}",
    "a codec": "{{ ('\u00e9'*200000).encode('punycode') }}",
    "a pretty printer": "{{ " + "[" * 50 + "1" + "]" * 50 + "|pprint }}",
    "finding links": "{{ (')'*200000 ~ 'x')|urlize }}",
    "removing tags": "{{ ('<>'*100000)|striptags }}",
    "wrapping words": "{{ ('a'*200000)|wordwrap(1) }}",
}

HUGE = {
    "range": "{% for i in range(10**9) %}{% endfor %}",
    "text": "{{ 'a' * 10**10 }}",
    "text, the other way round": "{{ 10**10 * 'a' }}",
    "list": "{% set x = [0] * 10**10 %}",
    "power": "{{ 10**(10**10) }}",
    "product": "{% set ns = namespace(x=3) %}{% for i in range(60) %}{% set ns.x = ns.x * ns.x %}{% endfor %}",
    "doubled by ~": "{% set ns = namespace(x='aa') %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
    "doubled by +": "{% set ns = namespace(x='aa') %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}",
    "doubled by a block": (
        "{% set ns = namespace(x='aa') %}"
        "{% for i in range(60) %}{% set ns.x %}{{ ns.x }}{{ ns.x }}{% endset %}{% endfor %}"
    ),
    "doubled by a list": (
        "{% set ns = namespace(x=[], y=[]) %}{% for i in range(60) %}"
        "{% set ns.x = [ns.x, ns.x] %}{% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}"
    ),
    "doubled by a dict": (
        "{% set ns = namespace(x={}) %}"
        "{% for i in range(60) %}{% set ns.x = dict(a=ns.x, b=ns.x) %}{% endfor %}{{ ns.x }}"
    ),
    "data in a loop": "{% for i in range(99999) %}" + "x" * 20000 + "{% endfor %}",
    "data in a macro": "{% macro m() %}{% for i in range(99999) %}"
    + "x" * 20000
    + "{% endfor %}{% endmacro %}{{ m() }}",
    "slices": "{% set a = 'a'*5000000 %}" + "{% set b = a[1:] %}" * 1000,
    "replace": "{% set a = 'a'*100000 %}{{ a|replace('a', a) }}",
    "replace method": "{% set a = 'a'*100000 %}{{ a.replace('a', a) }}",
    "join": "{{ range(99999)|join('a'*100000) }}",
    "join of a generator": "{{ range(99999)|map('string')|join('a'*100000) }}",
    "join method": "{% set a = 'a'*100000 %}{{ a.join(a) }}",
    "indent": "{{ 'a\n'|indent(9999999999) }}",
    "indent with text": "{{ ('a\n' * 100000)|indent('a' * 100000) }}",
    "JSON": "{{ [1]|tojson(indent=9999999999) }}",
    "percent": "{{ '%9999999999d' % 1 }}",
    "percent with a computed width": "{{ '%*d' % (9999999999, 1) }}",
    "percent, often": "{{ ('%(a)s' * 100000) % {'a': 'a' * 1000000} }}",
    "format filter": "{{ '%9999999999d' | format(1) }}",
    "format filter, often": "{{ ('%s' * 100000) | format('a' * 1000000) }}",
    "format": "{{ '{:>9999999999}'.format(1) }}",
    "format with a computed width": "{{ '{:>{}}'.format(1, 9999999999) }}",
    "format, often": "{{ ('{0}' * 100000).format('a' * 1000000) }}",
    "time": "{{ strftime_now('%9999999999Y') }}",
    "ljust": "{{ 'a'.ljust(9999999999) }}",
    "center": "{{ 'a'|center(9999999999) }}",
    "expandtabs": "{{ '\t'.expandtabs(9999999999) }}",
    "batch": "{{ [1]|batch(9999999999, 0)|list }}",
    "lipsum": "{{ lipsum(99999) }}",
    "parentheses": "{{ " + "(" * 20000 + "1" + ")" * 20000 + " }}",
    "terms": "{{ " + "1+" * 20000 + "1 }}",
    "brackets": "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "blocks": "{% if 1 %}" * 2000 + "{% endif %}" * 2000,
    "source": "x" * (LONGEST_SOURCE + 1),
    "replace with named arguments": "{% set a = 'a'*100000 %}{{ a|replace(new=a, old='a') }}",
    "replace in a list": "{% set a = 'a'*100000 %}{{ [a]|replace('a', a) }}",
    "join with named arguments": "{% set a = 'a'*100000 %}{{ (['x']*9999)|join(attribute='y', d=a) }}",
    "indent of other lines": "{{ ('a\r'*100000)|indent(9999) }}",
    "tabs": "{{ ('\t'*100000).expandtabs(9999) }}",
    "center of many digits": "{{ 'a'.center(10**9) }}",
    "zeros": "{{ 'a'.zfill(10**9) }}",
    "truncate": "{{ 'a'|truncate(10**9) }}",
    "rounding up": "{{ 1|round(10**9, 'ceil') }}",
    "rounding": "{{ 1|round(-10**9) }}",
    "bytes of a number": "{{ (1).to_bytes(10**10, 'big') }}",
    "translate": "{{ ('a'*100000).translate({97: 'a'*100000}) }}",
    "separators of JSON": "{{ ([0]*10000)|tojson(separators=('a'*100000, ':')) }}",
    "attributes of XML": "{% set a = '&'*200000 %}{{ {'a': a, 'b': a}|xmlattr }}",
    "views of a dictionary": "{% set d = {'a': 'a'*100000} %}{{ ('%s'*9999) % ((d.values(),)*9999) }}",
    "percent with a key": "{{ '%(a)9999999999d' % {'a': 1} }}",
    "percent with parentheses in a key": "{{ '%(a(b)c)9999999999d' % {'a(b)c': 1} }}",
    "time with a sign": "{{ strftime_now('%+9999999999Y') }}",
    "a block": "{% set x %}{% for i in range(99) %}" + "x" * 20000 + "{% endfor %}{% endset %}{{ x|upper }}",
}


@pytest.mark.parametrize(
    "source", [*PEEPING.values(), *ENDLESS.values(), *HUGE.values()], ids=[*PEEPING, *ENDLESS, *HUGE]
)
def test_a_hostile_template_ends_in_an_error_within_a_second(source: str) -> None:
    # processor time of this thread, independent of other programs on the machine
    start = time.thread_time()
    with pytest.raises(InvalidRequestError, match=r"^The chat template 'bad' "):
        ChatTemplate(source, name="bad").render([{"role": "user", "content": "hello"}])
    assert time.thread_time() - start < 1


@pytest.mark.parametrize("source", ["{{ [1, 2]|random }}", "{{ lipsum() }}"])
def test_a_template_cannot_depend_on_chance(source: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"random|lipsum"):
        ChatTemplate(source).render([{"role": "user", "content": "hello"}])


@pytest.mark.parametrize("source", ["{{ dict.update(messages[0], role='system') }}", "{{ 'a'|safe.unescape() }}"])
def test_methods_of_classes_and_of_escaped_text_are_refused(source: str) -> None:
    with pytest.raises(InvalidRequestError):
        ChatTemplate(source).render([{"role": "user", "content": "hello"}])


def test_the_text_of_a_namespace_does_not_show_its_values() -> None:
    source = (
        "{% set ns = namespace(x=namespace()) %}"
        "{% for i in range(60) %}{% set ns.x = namespace(a=ns.x, b=ns.x) %}{% endfor %}{{ ns.x }}"
    )
    assert SandboxedTemplate(source).render({}) == "<Namespace>"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ 'a' ~ 1 ~ none ~ ['b'] }}", "a1None['b']"),
        ("{% for a, b in [(1, 2)] %}{{ a }}{{ b }}{% else %}none{% endfor %}", "12"),
        ("{% for x in missing %}{{ x }}{% else %}none{% endfor %}", "none"),
        ("{% for x in 'abc' %}{{ loop.index }}{{ loop.last }}{{ loop.length }}{{ x }} {% endfor %}", None),
        ("{% for x in [1, 2, 3] if x != 2 %}{{ loop.previtem }}{{ x }}{% endfor %}", "113"),
        ("{% set x %}a{{ 1 }}{% endset %}{{ x | upper }}", "A1"),
        ("{% filter upper %}a{{ 1 }}{% endfilter %}", "A1"),
        ("{% macro m(x) %}<{{ x }}{{ caller() }}>{% endmacro %}{% call m(1) %}2{% endcall %}", "<12>"),
        (
            "{{ 'a,b'.split(',')[-1] }}{{ 'a-%s' % 'b' }}{{ '{}'.format(2) }}{{ '%d' | format(1) }}{{ 'abc'[::-1] }}",
            "ba-b21cba",
        ),
        ("{{ [1, 2] + [3] }}{{ (1, 2)[0] }}{{ {'a': 1}.items() | list }}", "[1, 2, 3]1[('a', 1)]"),
        ("{{ {'a': 1, 'b': none} | dictsort }}{{ {'get': 5}['get'] }}", "[('a', 1), ('b', None)]5"),
        ("{{ [{'r': 'u'}] | selectattr('r', 'equalto', 'u') | map(attribute='r') | join(', ') }}", "u"),
        (
            "{{ 'a\nb' | indent }}{{ 'aXb' | replace('X', 'y') }}{{ ' a ' | trim }}",
            "a\n    bayba",
        ),
        ("{{ 3 * 4 + 2 ** 3 - 1 }}{{ 'ab' * 2 }}{{ 7 // 2 }}{{ 7 % 4 }}", "19abab33"),
        ("{{ 1 if x is defined else 2 }}{{ 'b' in 'abc' }}{{ 1 < 2 < 3 }}{{ not 1 == 1 }}", "2TrueTrueFalse"),
        ("{% set ns = namespace(n=0) %}{% for x in range(3) %}{% set ns.n = ns.n + x %}{% endfor %}{{ ns.n }}", "3"),
        ("{{ 2.567|round(1) }}{{ 2.1|round(0, 'ceil') }}{{ 1234567|filesizeformat }}", "2.63.01.2 MB"),
        ("{{ [1, 2]|sum }}{{ [{'n': 1}, {'n': 2}]|sum('n', 3) }}{{ [[1], [2]]|sum(start=[]) }}", "36[1, 2]"),
        ("{{ 'one two three four'|truncate(9) }}{{ 'one two'|wordcount }}{{ 'one two'|title }}", "one...2One Two"),
        ("{{ [1, 2]|map('string')|join('-') }}{{ [{'a': {'b': 1}}]|map(attribute='a.b')|first }}", "1-21"),
        ("{{ [1, 2, 3]|select('odd')|list }}{{ [1, 2, 3]|reject('odd')|list|length }}", "[1, 3]1"),
        ("{{ [{'r': 1}, {}]|selectattr('r', 'defined')|list }}{{ [{}]|rejectattr('r')|list }}", "[{'r': 1}][{}]"),
        (
            "{% for k, g in [{'r': 1, 'n': 1}, {'r': 1, 'n': 2}]|groupby('r') %}{{ k }}{{ g|length }}{% endfor %}",
            "12",
        ),
        ("{{ [1, 2, 3]|batch(2, 0)|list }}{{ [1, 2, 3]|slice(2)|list }}", "[[1, 2], [3, 0]][[1, 2], [3]]"),
        ("{{ [2, 1, 2]|unique|sort|list }}{{ [3, 1]|min }}{{ 'abc'|reverse }}{{ [1, 2]|last }}", "[1, 2]1cba2"),
        ("{{ ' ab '.strip().center(6, '-') }}{{ 'a b'.split() }}{{ 'a'.ljust(2) }}{{ '7'.zfill(3) }}|", None),
        ("{{ {'a': 1}|items|list }}{{ {'a': 1}.get('b', 10**9) }}", "[('a', 1)]1000000000"),
        ("{{ missing|default(10**9) }}{{ 'a'|center(5) }}|{{ 'a<b'|e }}{{ 'a b'|urlencode }}", None),
        ("{{ {'id': 'x'}|xmlattr }}{{ '42'|int + 1 }}{{ 255.0.is_integer() }}{{ (5).bit_length() }}", None),
        ("{{ '{{\"a\": {}}}'.format(1) }}{{ '{:>4}'.format(1) }}{{ '100%% of %(n)3d' % {'n': 5} }}", None),
        ("{% set c = cycler('a', 'b') %}{{ c.next() }}{{ c.next() }}{% set j = joiner() %}{{ j() }}{{ j() }}", "ab, "),
    ],
)
def test_an_ordinary_template_renders_as_with_jinja(source: str, expected: str | None) -> None:
    by_jinja = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string(source).render()
    assert SandboxedTemplate(source).render({}) == by_jinja
    assert expected in {None, by_jinja}


@pytest.mark.parametrize(("pauses", "ends"), [(3, False), (4, True)])
def test_the_garbage_collector_does_not_end_a_render_but_slow_steps_do(
    monkeypatch: pytest.MonkeyPatch, *, pauses: int, ends: bool
) -> None:
    clock = itertools.accumulate([0.0, *[0.5] * pauses, *[0.001] * 100])
    monkeypatch.setattr(time, "thread_time", lambda: next(clock))
    meter = Meter({})
    if ends:
        with pytest.raises(TemplateLimitError, match="too long"):
            list(meter.rounds(range(100)))
    else:
        assert list(meter.rounds(range(100))) == list(range(100))
