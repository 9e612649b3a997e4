"""The `# METADATA` comments that explanations quote."""

from stepgrant_broker.policy.metadata import Metadata, read_annotations

TEXT = """# METADATA
# title: The package
# scope: package
package stepgrant

# METADATA
# title: "No amount"
# description: |
#   The argument is missing,
#   or is not a number.
# custom:
#   code: amount_unreadable
#   owner: finance
deny contains "amount_unreadable" if not ok

# a plain comment
# title: not an annotation
ok if input.action.tool

#METADATA
# description: One line.
# entrypoint: true
allow if ok
"""


def test_annotations_belong_to_the_line_after_them() -> None:
    assert read_annotations(TEXT) == {
        4: Metadata("The package"),
        14: Metadata("No amount", "The argument is missing, or is not a number.", "amount_unreadable"),
        23: Metadata("", "One line."),
    }


def test_no_annotations() -> None:
    assert read_annotations("package a\n\n# title: x\nb := 1\n") == {}
    assert read_annotations("# METADATA") == {2: Metadata()}
