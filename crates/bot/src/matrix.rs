//! The matrix as text, from what one bot knows.

use std::fmt::{self, Display};
use std::time::Duration;

use canary_core::{Attempt, Failure, NodeName, Snapshot, State};

/// What is shown of one pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// A node does not measure itself.
    Itself,
    /// It was not measured yet, or no measurement was received.
    Unknown,
    Ok(Duration),
    Failed(Failure),
}

impl Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Itself => f.pad("-"),
            Self::Unknown => f.pad("?"),
            Self::Ok(total) => f.pad(&format!("{:.2}", total.as_secs_f64() * 1e3)),
            Self::Failed(kind) => f.pad(kind.as_str()),
        }
    }
}

/// Every pair of the nodes that are there: rows are sources, columns are targets.
#[derive(Debug)]
pub(crate) struct Matrix {
    names: Vec<NodeName>,
    rows: Vec<Vec<Shown>>,
}

impl Matrix {
    pub(crate) fn of(snapshot: &Snapshot) -> Self {
        let mut names: Vec<_> = snapshot
            .present()
            .map(|member| member.record.name.clone())
            .chain([snapshot.me.name.clone()])
            .collect();
        names.sort_unstable();
        let rows = names.iter().map(|source| row(snapshot, source, &names)).collect();
        Self { names, rows }
    }

    /// Pairs that were measured with success.
    pub(crate) fn measured(&self) -> usize {
        self.rows.iter().flatten().filter(|shown| matches!(shown, Shown::Ok(_))).count()
    }

    pub(crate) fn nodes(&self) -> usize {
        self.names.len()
    }
}

fn row(snapshot: &Snapshot, source: &NodeName, targets: &[NodeName]) -> Vec<Shown> {
    let mut shown: Vec<_> = targets
        .iter()
        .map(|target| if target == source { Shown::Itself } else { Shown::Unknown })
        .collect();
    if *source == snapshot.me.name {
        for (target, shown) in targets.iter().zip(&mut shown) {
            if let Some((attempt, _)) =
                snapshot.member(target).and_then(|member| member.pair.main().latest())
            {
                *shown = match attempt {
                    Attempt::Ok(timing) => Shown::Ok(timing.total()),
                    Attempt::Failed(kind) => Shown::Failed(kind),
                };
            }
        }
    } else if let Some(row) = snapshot.member(source).and_then(|member| member.row.as_ref()) {
        for view in row.cells() {
            if let Ok(index) = targets.binary_search(view.target) {
                match view.cell.state {
                    State::Unknown => {}
                    State::Ok { total, .. } => shown[index] = Shown::Ok(total.decode()),
                    State::Failed(kind) => shown[index] = Shown::Failed(kind),
                }
            }
        }
    }
    shown
}

impl Display for Matrix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CELL: usize = 8;
        let width = self
            .names
            .iter()
            .map(|name| name.as_str().chars().count())
            .max()
            .unwrap_or(0)
            .max("from \\ to".len());
        let short = |name: &NodeName| name.as_str().chars().take(CELL - 1).collect::<String>();
        write!(f, "{:<width$}", "from \\ to")?;
        for name in &self.names {
            write!(f, " {:>CELL$}", short(name))?;
        }
        writeln!(f)?;
        for (name, row) in self.names.iter().zip(&self.rows) {
            write!(f, "{:<width$}", name.as_str())?;
            for shown in row {
                write!(f, " {shown:>CELL$}")?;
            }
            writeln!(f)?;
        }
        writeln!(f, "ms to connect and get an answer; ? is unknown; a word is how the pair failed")
    }
}
