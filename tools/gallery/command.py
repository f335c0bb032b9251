"""Keep identities and their embeddings in one file, and find them again."""

from ember_reid.tools.common.cli import CommandGroup

DESCRIPTION = r"""
Keep identities and their embeddings in one SQLite file, and find them again on other images.
Several processes may use a gallery at the same time.

    python -m tools.gallery add people.db weights=runs/quickstart/checkpoints/best.pt \
        --ids folder known/
    python -m tools.gallery query people.db photo.jpg
"""
COMMANDS = {
    "add": ("add:main", "add images to identities; creates the file"),
    "query": ("search:main", "find the identities on images"),
    "list": ("edit:list_identities", "the identities and their numbers of images"),
    "merge": ("edit:merge", "make several identities one"),
    "forget": ("edit:forget", "delete identities and their embeddings from the file"),
    "export": ("edit:export", "write the embeddings as .npz or the images as .csv"),
}

main = CommandGroup(
    "gallery",
    DESCRIPTION,
    {
        name: (f"ember_reid.tools.gallery.{target}", text)
        for name, (target, text) in COMMANDS.items()
    },
).main
