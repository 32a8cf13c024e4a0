"""Rewrites a source file of Rust so that it has all its mutants at once, each behind a switch.

Not the switch (`switch.rs`), and not which mutants compile. Invariant: with every mutant off, the rewritten file does
what the original does.
"""

from dataclasses import dataclass

from tree_sitter import Language, Node, Parser
import tree_sitter_rust

from values import values_of

PARSER = Parser(Language(tree_sitter_rust.language()))

# What is left as it is: a part that the compiler evaluates, or a type or pattern, or text that is not parsed here.
AS_IT_IS = {
    "attribute_item", "const_block", "const_item", "closure_parameters", "enum_item", "line_comment", "block_comment",
    "macro_definition", "macro_invocation", "parameters", "static_item", "struct_item", "trait_bounds",
    "type_arguments", "type_item", "use_declaration", "where_clause",
}
COMPARISONS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">"}
SWAPS = COMPARISONS | {"&&": "||", "||": "&&", "+": "-", "-": "+", "*": "/", "/": "*", "%": "/", "<<": ">>",
                       ">>": "<<", "&": "|", "|": "&", "^": "|"}
ASSIGNMENTS = {"+=": "-=", "-=": "+=", "*=": "/=", "/=": "*=", "|=": "&=", "&=": "|=", "^=": "|=", "%=": "/=",
               "<<=": ">>=", ">>=": "<<="}
# The conditions that have no mutant of their own inside.
PLAIN = {"call_expression", "identifier", "field_expression", "await_expression", "try_expression", "macro_invocation"}
CALLS = {"call_expression", "await_expression", "try_expression"}


@dataclass(frozen=True)
class Mutant:
    """A change of one place. `number` is unique in a run, `key` names the same mutant in the next one."""

    number: int
    file: str
    line: int
    function: str
    what: str
    key: str


class Rewriter:
    """Rewrites one file. `mutants` are all that it can have, `regions` where those are that it has."""

    def __init__(self, file: str, source: bytes, first: int, without: set[int]):
        self.mutants: list[Mutant] = []
        # (start, end, number), in bytes of the rewritten text; a function has the number -1.
        self.regions: list[tuple[int, int, int]] = []
        self._file, self._source, self._first, self._without = file, source, first, without
        self._out, self._length = [], 0
        self._outer = ""
        self._functions: list[str] = []
        self._is_async = False
        self._seen: dict[str, int] = {}
        self._rewrite(PARSER.parse(source).root_node)
        self.text = b"".join(self._out)

    # --- What is written ---

    def _write(self, text: str | bytes) -> None:
        data = text.encode() if isinstance(text, str) else text
        self._out.append(data)
        self._length += len(data)

    def _copy(self, node: Node) -> None:
        self._write(node.text)

    def _children(self, node: Node, special=None) -> None:
        """Rewrites the children, and copies what is between them. `special` has what to do instead, by child id."""
        at = node.start_byte
        for child in node.children:
            self._write(self._source[at:child.start_byte])
            (special or {}).get(child.id, self._rewrite)(child)
            at = child.end_byte
        self._write(self._source[at:node.end_byte])

    def _switch(self, node: Node, what: str) -> str | None:
        """Returns the condition under which a new mutant is on; `None` where it is left out."""
        number = self._first + len(self.mutants)
        function = "::".join(self._functions)
        key = f"{self._file} {function} {what}"
        nth = self._seen[key] = self._seen.get(key, 0) + 1
        line = node.start_point[0] + 1
        self.mutants.append(Mutant(number, self._file, line, function, what, f"{key} #{nth}"))
        return None if number in self._without else f"crate::mutants::on({number})"

    def _region(self, start: int, switch: str) -> None:
        self.regions.append((start, self._length, int(switch[switch.index("(") + 1 : -1])))

    # --- What is read ---

    def _rewrite(self, node: Node) -> None:
        if node.type in AS_IT_IS or (node.type.endswith(("_type", "_pattern")) and node.type != "match_pattern"):
            self._copy(node)
        elif node.type == "function_item":
            self._function(node)
        elif node.type in ("impl_item", "mod_item", "trait_item"):
            self._named(node)
        elif node.child_count == 0:
            self._copy(node)
        elif self._functions and node.type in self._HANDLERS:
            self._HANDLERS[node.type](self, node)
        else:
            self._children(node)

    def _named(self, node: Node) -> None:
        name = node.child_by_field_name("type" if node.type == "impl_item" else "name")
        if _is_of_tests(node):
            return self._copy(node)
        # Only functions have mutants; the name of what is around them is a part of theirs.
        outer, self._outer = self._outer, name.text.decode() if node.type != "mod_item" else self._outer
        self._children(node)
        self._outer = outer

    def _function(self, node: Node) -> None:
        body = node.child_by_field_name("body")
        modifiers = [child.text.decode() for child in node.children if child.type == "function_modifiers"]
        if body is None or any("const" in words for words in modifiers) or _is_of_tests(node):
            return self._copy(node)
        name = node.child_by_field_name("name").text.decode()
        was_async, self._is_async = self._is_async, any("async" in words for words in modifiers)
        self._functions.append(f"{self._outer}::{name}" if self._outer and not self._functions else name)
        start = self._length
        result = node.child_by_field_name("return_type")
        self._children(node, {body.id: lambda block: self._body(block, result)})
        self.regions.append((start, self._length, -1))
        self._functions.pop()
        self._is_async = was_async

    def _body(self, block: Node, result: Node | None) -> None:
        statements = [child for child in block.named_children if not child.type.endswith("_comment")]
        only = statements[0].text.decode() if len(statements) == 1 else None
        self._write("{")
        for value in values_of(result) if statements else []:
            # What the function returns anyway is no change.
            if value == only:
                continue
            what = f"returns {value} at once" if value else "returns at once"
            if switch := self._switch(block, what):
                start = self._length
                self._write(f" if {switch} {{ return {value}; }}")
                self._region(start, switch)
        special = {block.children[0].id: lambda _brace: None}
        tail = statements[-1] if statements else None
        if result is None and tail is not None and tail.type in CALLS and len(statements) > 1:
            special[tail.id] = self._removable
        self._children(block, special)

    def _removable(self, node: Node) -> None:
        """A statement that a mutant leaves out."""
        if not (switch := self._switch(node, f"without `{_short(node)}`")):
            return self._children(node) if node.type == "expression_statement" else self._rewrite(node)
        start = self._length
        self._write(f"if !{switch} {{ ")
        self._children(node) if node.type == "expression_statement" else self._rewrite(node)
        self._write(" }")
        self._region(start, switch)

    def _statement(self, node: Node) -> None:
        inner = node.children[0]
        is_call = inner.type in CALLS and not (self._is_async and inner.text.startswith(b"drop("))
        is_assignment = inner.type == "assignment_expression" and inner.children[0].type in (
            "field_expression", "unary_expression", "index_expression")
        if node.children[-1].type == ";" and (is_call or is_assignment):
            self._removable(node)
        else:
            self._children(node)

    def _binary(self, node: Node) -> None:
        left, operator, right = (node.child_by_field_name(name) for name in ("left", "operator", "right"))
        sign = operator.type
        if sign in ("==", "!="):
            what = f"`{_short(node)}` with `{'!=' if sign == '==' else '=='}`"
            return self._negated(node, what, self._children)
        changed = SWAPS.get(sign)
        switch = changed and self._switch(node, f"`{_short(node)}` with `{changed}`")
        if not switch:
            return self._children(node)
        self._choice(node, switch, left.text + f" {changed} ".encode() + right.text)

    def _assignment(self, node: Node) -> None:
        left, operator, right = (node.child_by_field_name(name) for name in ("left", "operator", "right"))
        changed = ASSIGNMENTS[operator.type]
        if not (switch := self._switch(node, f"`{_short(node)}` with `{changed}`")):
            return self._children(node)
        self._choice(node, switch, left.text + f" {changed} ".encode() + right.text)

    def _unary(self, node: Node) -> None:
        if node.children[0].type != "!":
            return self._children(node)
        if not (switch := self._switch(node, f"`{_short(node)}` without `!`")):
            return self._children(node)
        self._choice(node, switch, node.children[1].text)

    def _choice(self, node: Node, switch: str, changed: bytes) -> None:
        start = self._length
        self._write(f"(if {switch} {{ ")
        self._write(changed)
        self._write(" } else { ")
        self._children(node)
        self._write(" })")
        self._region(start, switch)

    def _negated(self, node: Node, what: str, write) -> None:
        if not (switch := self._switch(node, what)):
            return write(node)
        start = self._length
        self._write("((")
        write(node)
        self._write(f") != {switch})")
        self._region(start, switch)

    def _branch(self, node: Node) -> None:
        condition = node.child_by_field_name("condition")
        special = {}
        if condition.type in PLAIN:
            what = f"condition `{_short(condition)}` negated"
            special[condition.id] = lambda child: self._negated(child, what, self._rewrite)
        self._children(node, special)

    def _chain(self, node: Node) -> None:
        """Conditions beside `let`: each that is none is also taken to hold."""
        special = {child.id: self._holds for child in node.named_children if child.type != "let_condition"}
        self._children(node, special)

    def _guard(self, node: Node) -> None:
        """The pattern of an arm of a `match`, of which only the guard is changed."""
        condition = node.child_by_field_name("condition")
        at = condition.start_byte if condition else node.end_byte
        self._write(self._source[node.start_byte:at])
        if condition is None:
            return
        if condition.type in ("let_chain", "let_condition"):
            return self._rewrite(condition)
        self._negated(condition, f"guard `{_short(condition)}` negated", self._holds)

    def _holds(self, node: Node) -> None:
        if not (switch := self._switch(node, f"`{_short(node)}` taken to hold")):
            return self._rewrite(node)
        start = self._length
        self._write(f"({switch} || (")
        self._rewrite(node)
        self._write("))")
        self._region(start, switch)

    _HANDLERS = {
        "binary_expression": _binary,
        "compound_assignment_expr": _assignment,
        "expression_statement": _statement,
        "if_expression": _branch,
        "let_chain": _chain,
        "match_pattern": _guard,
        "unary_expression": _unary,
        "while_expression": _branch,
    }


def _short(node: Node) -> str:
    text = " ".join(node.text.decode().split())
    return text if len(text) <= 60 else text[:57] + "..."


def _is_of_tests(node: Node) -> bool:
    before = node.prev_sibling
    while before is not None and before.type in ("attribute_item", "line_comment"):
        if before.text.startswith(b"#[cfg(test)]") or b"test]" in before.text:
            return True
        before = before.prev_sibling
    return False
