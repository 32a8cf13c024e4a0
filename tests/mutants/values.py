"""The plain values that a mutant returns in place of what a function computes, by the function's return type.

Not whether they compile: what does not is taken out later. A value is the text of an expression.
"""

from tree_sitter import Node

INTEGERS = {f"{sign}{bits}" for sign in "ui" for bits in (8, 16, 32, 64, 128, "size")}
EMPTY = {"Vec": "Vec::new()", "String": "String::new()"}


def values_of(result: Node | None) -> list[str]:
    """Returns the values for a return type; an empty text stands for `return` without a value."""
    if result is None:
        return [""]
    text = result.text.decode()
    if text == "()":
        return ["()"]
    if text == "bool":
        return ["true", "false"]
    if text in INTEGERS:
        return ["0", "1"]
    if text == "&str":
        return ['""']
    if text == "fmt::Result":
        return ["Ok(())"]
    if result.type in ("abstract_type", "reference_type", "never_type", "dynamic_type", "pointer_type"):
        return []
    if result.type == "generic_type":
        return _of_generic(result)
    return [EMPTY.get(text, "Default::default()")]


def _of_generic(result: Node) -> list[str]:
    name = result.child_by_field_name("type").text.decode().rsplit("::")[-1]
    arguments = result.child_by_field_name("type_arguments").named_children
    if name.endswith("Result"):
        return [f"Ok({value})" for value in values_of(arguments[0])]
    if name == "Option":
        return ["None"] + [f"Some({value})" for value in _plain(arguments[0])]
    if name == "Fenced":
        return ["Fenced::Refused"] + [f"Fenced::Done({value})" for value in _plain(arguments[0])]
    return [EMPTY.get(name, "Default::default()")]


def _plain(inner: Node) -> list[str]:
    """The values of a type inside of another: only those that surely exist."""
    return [value for value in values_of(inner) if value != "Default::default()"]
