"""A job's name from a language model, where the settings ask for that."""

from __future__ import annotations

from dataclasses import replace

from rvstate.workflows.run.order import Order
from rvstate.workflows.session import Session


def named(session: Session, order: Order, *, asking: bool) -> tuple[Order, tuple[str, ...]]:
    """The order with a name, and what the user should know about how it came to it.

    Args:
        session: Whose settings count.
        order: What the user asked for; a name in it is kept, and nobody is asked.
        asking: Whether anything may leave this machine; else it is only said what would.
    """
    defaults = session.config.settings.defaults
    if not defaults.ai_naming or order.name is not None:
        return order, ()
    if not defaults.ai_api_key:
        return order, (
            "ai_naming in [defaults] is on and there is no ai_api_key, so nobody is asked",
        )
    # loaded only where it is wanted
    from rvstate import naming

    text, host = naming.outline(order.words), naming.provider(defaults.ai_api_key).host
    if not asking:
        return order, (f"for a name this would be sent to {host}: {text}",)
    name = naming.ask(defaults.ai_api_key, text)
    said = f"for a name this was sent to {host}: {text}"
    if name is None:
        return order, (f"{said}; there was no good answer within a second",)
    return replace(order, name=name), (said,)
