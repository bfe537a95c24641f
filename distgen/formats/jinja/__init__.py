"""Any other model: its published Jinja chat template as a Formatter, run on a budget. Needs the extra `jinja`."""

from distgen.formats.jinja.template import JinjaTemplate as JinjaTemplate
from distgen.formats.jinja.template import from_tokenizer_config as from_tokenizer_config
from distgen.formats.jinja.template import jinja as jinja
