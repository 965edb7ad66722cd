//! A section of the report: figures under a title, each with the median and spread of its runs.

use crate::results::{Better, Figure};

/// Figures that belong together.
#[derive(Debug)]
pub struct Section {
    /// Its title, and the beginning of its figures' names in a kept result.
    pub title: String,
    /// Name and figure.
    pub figures: Vec<(String, Figure)>,
}

impl Section {
    /// Nothing yet.
    pub fn new(title: &str) -> Section {
        Section { title: title.to_owned(), figures: Vec::new() }
    }

    /// One line a figure.
    pub fn print(&self) {
        println!("\n# {}: median (least .. greatest)", self.title);
        for (name, figure) in &self.figures {
            println!("{name:<56} {:<13} {figure}", figure.unit);
        }
    }
}

/// Builds a section line by line from the runs it is about. What a run did not measure is left out.
pub struct Lines<'a, T> {
    runs: &'a [T],
    section: Section,
}

impl<'a, T> Lines<'a, T> {
    /// Nothing yet about these runs.
    pub fn of(title: &str, runs: &'a [T]) -> Self {
        Lines { runs, section: Section::new(title) }
    }

    /// A figure that can be a regression.
    pub fn judged<V: Into<Option<f64>>>(self, better: Better, name: &str, unit: &str, value: impl Fn(&T) -> V) -> Self {
        self.line((name, unit), better, true, value)
    }

    /// A figure that only informs.
    pub fn informs<V: Into<Option<f64>>>(
        self,
        better: Better,
        name: &str,
        unit: &str,
        value: impl Fn(&T) -> V,
    ) -> Self {
        self.line((name, unit), better, false, value)
    }

    /// A figure that says how to read the others.
    pub fn context<V: Into<Option<f64>>>(self, name: &str, unit: &str, value: impl Fn(&T) -> V) -> Self {
        self.line((name, unit), Better::Neither, false, value)
    }

    /// The section.
    pub fn done(self) -> Section {
        self.section
    }

    fn line<V: Into<Option<f64>>>(
        mut self,
        (name, unit): (&str, &str),
        better: Better,
        judged: bool,
        value: impl Fn(&T) -> V,
    ) -> Self {
        let values = self.runs.iter().filter_map(|run| value(run).into()).collect();
        if let Some(figure) = Figure::of(unit, better, judged, values) {
            self.section.figures.push((name.to_owned(), figure));
        }
        self
    }
}
