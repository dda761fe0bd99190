"""Reads configuration files with oslo.config itself.

Standard input is a list of cases, each a list of texts of files. Standard
output is a list with, for each case, the values of all options that are set,
by "section option", or the number of the line that is refused, 0 when it is a
reference.
"""

import json
import os
import re
import sys
import tempfile

from oslo_config import cfg


def read(directory, texts):
    paths = []
    for i, text in enumerate(texts):
        paths.append(os.path.join(directory, "%d.conf" % i))
        with open(paths[-1], "w", newline="", encoding="utf-8") as f:
            f.write(text)
    conf = cfg.ConfigOpts()
    try:
        conf(args=[], default_config_files=paths)
        wanted = set()
        for sections in conf._namespace._normalized:
            for section, options in sections.items():
                wanted.update((section, option) for option in options)
        for section, option in wanted:
            conf.register_opt(cfg.StrOpt(option), None if section == "DEFAULT" else section)
        values = {}
        for section, option in wanted:
            group = conf if section == "DEFAULT" else conf[section]
            values["%s %s" % (section, option)] = group[option]
        return values
    except cfg.ConfigFileParseError as e:
        return int(re.search(r"\.conf:(\d+), ", str(e)).group(1))
    except (cfg.NoSuchOptError, cfg.NoSuchGroupError, RecursionError):
        return 0


with tempfile.TemporaryDirectory() as d:
    json.dump([read(d, texts) for texts in json.load(sys.stdin)], sys.stdout)
