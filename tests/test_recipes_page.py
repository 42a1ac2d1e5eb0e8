"""docs/recipes.md says what the recipe files say, today."""

from tools import recipes_page

from layerstill.names import shipped_recipes
from layerstill.recipe import Recipe


def test_the_page_is_what_the_files_give():
    assert recipes_page.PAGE.read_text("utf-8") == recipes_page.page(), "run python -m tools.recipes_page"


def test_every_recipe_has_a_section_with_a_row_for_each_term():
    sections = dict(part.split("\n", 1) for part in recipes_page.page().split("\n## ")[1:])
    assert set(sections) == set(shipped_recipes())
    for name, text in sections.items():
        stages = Recipe.load(name).stages
        assert text.count("learning rate") >= len(stages)
        for stage in stages:
            for term in stage.objectives:
                assert f"\n| {term} | " in text, (name, term)


def test_the_header_of_a_file_is_read_line_by_line():
    found = recipes_page.header_of(
        "# kd: soft targets\n#   and labels.\n# Paper: one,\n# two.\n# Equation: x\nstages: []\n# no\n"
    )
    assert found == {"What": "kd: soft targets and labels.", "Paper": "one, two.", "Equation": "x"}
    assert recipes_page.what(found) == "Soft targets and labels."


def test_numbers_are_written_as_people_write_them():
    assert [recipes_page.number_of(value) for value in (3e-4, 2e-5, 0.5, 10, 1.5e-5)] == [
        "3e-4", "2e-5", "0.5", "10", "1.5e-5"
    ]  # fmt: skip
    assert recipes_page.weight(1 / 3) == "1/3"
