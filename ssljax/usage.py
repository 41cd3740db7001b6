"""The text that `--help` prints."""

import sys
from pathlib import Path

from ssljax import flags

_KNOB_HELP = {  # for modes in which knobs do not override --config
    "eval": "Other data, the location of the data, or eval_batch_size.",
    "export": "Overrides of the bundle's recipe; or other images for the report, or their path.",
    "import_npu": "The location of the data.",
    "predict": "The location of the run's data, or eval_batch_size.",
    "label_next": "Overrides of the recipe; or the location of the run's data.",
    "label_errors": "The location of the run's data.",
    "add_labels": "Overrides of the recipe; or the location of the run's data.",
}


def help_text() -> str:
    """Returns the text that `--help` prints."""
    values = flags.define_flags()
    program = _program_name()
    lines = [
        "Semi-supervised image classification in JAX.",
        "",
        f"  {program} --config=fixmatch_digits --config.num_steps=400 --workdir=runs/first",
        f"  {program} --mode=report --workdir=runs",
        "",
        "--mode=recipes lists the recipes; with --config=<recipe> it lists the recipe's knobs. Any",
        "knob is overridden by --config.<knob>=<value>.",
    ]
    for mode, spec in flags.MODES.items():
        lines += ["", f"--mode={mode}: {spec.help}"]
        for name in spec.flags:
            if name == flags.KNOB:
                if mode in _KNOB_HELP:
                    lines.append(f"  --{flags.KNOB + '=<…>':<32} {_KNOB_HELP[mode]}")
                continue
            flag = values[name]
            choices = getattr(flag.parser, "enum_values", None)
            value = "" if flag.boolean else f"=<{'|'.join(choices) if choices else '…'}>"
            text = flag.help.rpartition(">: ")[2] if choices else flag.help
            lines.append(f"  --{name + value:<32} {text}")
    return "\n".join(lines)


def _program_name() -> str:
    name = Path(sys.argv[0]).name
    return f"python {name}" if name == "launch.py" else "ssljax"
