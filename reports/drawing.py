"""A chart's spec drawn as SVG that may stand inside the page.

vl-convert runs Vega in this process, without a browser. What comes back is held against the few
elements and attributes a drawing needs: nothing of it may run, load or point anywhere, and it is
relieved of what only says the default, which is half of it.
"""

import re
from xml.etree import ElementTree

import vl_convert
from markupsafe import Markup

from reports.rows import JsonObject, UndrawableError

SVG = "{http://www.w3.org/2000/svg}"
ELEMENTS = frozenset({"svg", "g", "path", "line", "rect", "text", "tspan", "title"})
ATTRIBUTES = frozenset(
    {
        *("width", "height", "viewBox", "transform", "d", "x", "y", "x1", "x2", "y1", "y2"),
        *("dx", "dy", "rx", "ry", "fill", "stroke", "stroke-width", "stroke-dasharray"),
        *("stroke-linecap", "stroke-linejoin", "stroke-miterlimit", "stroke-opacity"),
        *("fill-opacity", "opacity", "text-anchor", "font-size", "font-weight", "font-style"),
    }
)
DEFAULTS = {
    ("opacity", "1"),
    ("stroke-width", "1"),
    ("transform", "translate(0,0)"),
    ("font-weight", "normal"),
    ("stroke-dasharray", "1,0"),
    ("stroke-miterlimit", "10"),
}
LONG_DECIMALS = re.compile(r"(\d+\.\d)\d+")
DECIMALS_IN = frozenset({"d", "transform", "x", "y", "x1", "x2", "y1", "y2", "width", "height"})


def draw(spec: JsonObject, *, label: str) -> Markup:
    """Inline SVG with `label` as its text alternative. Costs some 40 ms."""
    try:
        drawn = vl_convert.vegalite_to_svg(spec)
    except ValueError as error:
        raise UndrawableError(f"vl-convert refused it: {str(error).splitlines()[0]}") from error
    root = ElementTree.fromstring(drawn)
    _clean(root)
    root.set("role", "img")
    root.set("aria-label", label)
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _clean(element: ElementTree.Element) -> None:
    element.tag = element.tag.removeprefix(SVG)
    if element.tag not in ELEMENTS:
        raise UndrawableError(f"it holds a <{element.tag}>, which a picture does not need")
    for name, value in list(element.attrib.items()):
        # The rest are classes, roles, and fonts, which are the page's.
        if name not in ATTRIBUTES or (name, value) in DEFAULTS:
            del element.attrib[name]
        elif "url(" in value:
            raise UndrawableError(f"its {name} points at {value}")
        elif name in DECIMALS_IN:
            element.set(name, LONG_DECIMALS.sub(r"\1", value))
    for child in list(element):
        if _draws_nothing(child):
            element.remove(child)
            continue
        _clean(child)
        if child.tag == "g" and not len(child):
            element.remove(child)
        elif child.tag == "g" and not child.attrib:
            at = list(element).index(child)
            element.remove(child)
            for offset, grandchild in enumerate(child):
                element.insert(at + offset, grandchild)


def _draws_nothing(element: ElementTree.Element) -> bool:
    if element.get("display") == "none" or element.get("fill") == "transparent":
        return True
    background = element.get("class") in ("background", "foreground")
    return background and element.get("stroke") is None and element.get("fill") is None
