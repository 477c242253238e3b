"""Which tokens an answer may have: masks from grammars."""
