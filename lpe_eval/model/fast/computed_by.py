"""A method of an encoding that says what is computed, and beside it a form that computes the same in less time.

    @computed_by(lambda self, logits, bias: corrected_pairs(self.network(), logits, bias))
    def corrected(self, logits, bias):
        return ...  # the formula

The form gets the arguments of the method. Where it has no answer (None) the formula is computed. It equals the formula
up to rounding, values and gradients; the tests hold it to that, with the formula from `inspect.unwrap(method)`.
A subclass that overrides the method overrides both.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

Formula = TypeVar("Formula", bound=Callable[..., Any])


def computed_by(form: Callable[..., Any]) -> Callable[[Formula], Formula]:
    """Has a method computed by `form` wherever that returns something other than None."""

    def with_form(formula: Formula) -> Formula:
        @functools.wraps(formula)
        def method(*arguments: Any) -> Any:
            found = form(*arguments)
            return formula(*arguments) if found is None else found

        return cast(Formula, method)

    return with_form
