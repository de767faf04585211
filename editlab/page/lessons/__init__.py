"""Six guided lessons that react to a visitor's actions: data and rules over a session's state, without widgets."""

from editlab.page.lessons.a_cure import lesson as a_cure
from editlab.page.lessons.lesson import Action, Course, Lesson, Material, Scene, Task, advance, material_of
from editlab.page.lessons.one_bad_edit import lesson as one_bad_edit
from editlab.page.lessons.run_of_edits import lesson as run_of_edits
from editlab.page.lessons.side_effects import lesson as side_effects
from editlab.page.lessons.what_it_believes import lesson as what_it_believes
from editlab.page.lessons.where_is_it import lesson as where_is_it


def course(material: Material) -> tuple[Lesson, ...]:
    """The lessons, in their order."""
    lessons = (what_it_believes, side_effects, run_of_edits, one_bad_edit, a_cure, where_is_it)
    return tuple(make(material) for make in lessons)


__all__ = ["Action", "Course", "Lesson", "Material", "Scene", "Task", "advance", "course", "material_of"]
