//! Where a place in the text that is sent stands in the text that the user wrote.

/// A stretch of sent text within one line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stretch {
    sent: (u32, u32),
    user: (u32, u32),
    /// How many characters were taken over as they were; none of what was put in.
    kept: u32,
}

/// Stretches in the order of the sent text.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Positions {
    stretches: Vec<Stretch>,
}

impl Positions {
    /// The next stretch, with its line and column in both texts.
    pub(super) fn add(&mut self, sent: (u32, u32), user: (u32, u32), kept: u32) {
        self.stretches.push(Stretch { sent, user, kept });
    }

    /// The place in the user's text; for what was put in, the place where that happened.
    pub(super) fn user_position(&self, line: u32, column: u32) -> (u32, u32) {
        let after = self.stretches.partition_point(|stretch| stretch.sent <= (line, column));
        match after.checked_sub(1).map(|last| &self.stretches[last]) {
            Some(stretch) if stretch.sent.0 == line => {
                let along = (column - stretch.sent.1).min(stretch.kept);
                (stretch.user.0, stretch.user.1 + along)
            }
            Some(stretch) => stretch.user,
            None => (line.max(1), column.max(1)),
        }
    }
}
