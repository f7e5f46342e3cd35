"""Between Label Studio's label config and result JSON, and what the domain asks and answers.

`reader` is the `ConfigReader` port and parses configs; `texts` reads object tags, `html` and
`dialogue` those whose characters Label Studio counts in its own way; `controls` decides what a
control tag asks and why it cannot be labelled; `choices`, `scales` and `spans` hold one class per
control tag, which reads its labels, writes its results and reads people's; `results` puts these
together.
"""

from backend.labelstudio.label_config.reader import LabelConfigReader
from backend.labelstudio.label_config.results import read_answers
from backend.labelstudio.label_config.texts import FetchText

__all__ = ["FetchText", "LabelConfigReader", "read_answers"]
