"""Draws the embedded benchmark; ``product`` draws textures and parts, and ``damage`` draws their defects.

A damaged picture is drawn twice from the same random numbers, once whole and once damaged. Its mask is where the two
differ visibly, and so exact by construction. A picture measures 256 by 256 units, which are pixels at the default size.
Shapes are signed distances (negative inside), which give smooth edges in any pose.
"""

from squad_lit.dataset.drawing.render import DRAWING, PRODUCTS, Recipe, render

__all__ = ["DRAWING", "PRODUCTS", "Recipe", "render"]
