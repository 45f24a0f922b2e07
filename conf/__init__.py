"""The menu (YAML files that Hydra composes) and the schema that checks it."""

from conf.menu import register

register()
