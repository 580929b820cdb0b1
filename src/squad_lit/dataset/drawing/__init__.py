"""How the embedded benchmark is drawn: ``product`` has textures and parts, ``damage`` what can be wrong with them.

A damaged picture is drawn twice from the same random numbers, once whole and once damaged, and its mask is where the
two differ visibly: exact by construction. Lengths are in units of which a picture has 256 by 256; at the default size
these are pixels. Shapes are signed distances (negative inside), which give smooth edges in any pose.
"""

from squad_lit.dataset.drawing.render import DRAWING, PRODUCTS, Recipe, render

__all__ = ["DRAWING", "PRODUCTS", "Recipe", "render"]
