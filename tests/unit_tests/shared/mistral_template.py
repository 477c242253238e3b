"""A chat template with the rules of the one that Mistral publishes with its 7B Instruct v0.3.

- Users and answers alternate; calls and their results do not count.
- The tools stand before the last message of a user; a system message is shown where that message is the last of all.
- A call is shown with its id, a result with that of its call; both need nine characters.
- An answer with calls shows nothing but these.
"""

from __future__ import annotations

SOURCE = """
{%- set system = messages[0].content if messages[0].role == "system" else none %}
{%- set talk = messages[1:] if system is not none else messages %}
{%- set turns = talk | selectattr("tool_calls", "undefined") | rejectattr("role", "equalto", "tool") | list %}
{%- for turn in turns %}
    {%- if turn.role != ["user", "assistant"][loop.index0 % 2] %}
        {{- raise_exception("conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif %}
{%- endfor %}
{%- set questions = talk | selectattr("role", "equalto", "user") | list %}
{{- bos_token }}
{%- for message in talk %}
    {%- if message.role == "user" %}
        {%- if tools and message == questions[-1] %}
            {{- "[AVAILABLE_TOOLS] " + tools | tojson + "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {{- "[INST] " + (system + "\\n\\n" if loop.last and system is not none else "") + message.content + "[/INST]" }}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for call in message.tool_calls %}
            {%- if call.id is not defined or call.id | length != 9 %}
                {{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
            {%- endif %}
            {{- (call.function | tojson)[:-1] + ', "id": "' + call.id + '"}' + ("]" if loop.last else ", ") }}
        {%- endfor %}
        {{- eos_token }}
    {%- elif message.role == "assistant" %}
        {{- " " + message.content | trim + eos_token }}
    {%- elif message.role == "tool" %}
        {%- if message.tool_call_id is not defined or message.tool_call_id | length != 9 %}
            {{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
        {%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content + ', "call_id": "' + message.tool_call_id }}
        {{- '"}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported!") }}
    {%- endif %}
{%- endfor %}
"""
