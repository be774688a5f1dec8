"""Pictures of graphs, schedules, programs and runs, as SVG and HTML; over plain arrays, with nothing but Python and NumPy."""
