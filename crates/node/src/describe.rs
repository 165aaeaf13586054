//! Details of pairs, asked of their sources when somebody looks: few at a time, and kept for a
//! moment.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use canary_core::{Detail, Instance, MemberView, NodeName};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;

use crate::transport::Links;
use crate::v1;

/// Questions under way. More than a handful of people do not look at once, and each may wait for a
/// node that is gone.
const UNDER_WAY_MAX: usize = 8;
/// How long a source may take to answer: somebody waits.
const PATIENCE: Duration = Duration::from_secs(2);
/// An answer is given again for so long, a failure too: any number of pages open on one pair is one
/// question.
const KEPT: Duration = Duration::from_secs(2);
/// Answers that are kept; the oldest go first.
const KEPT_MAX: usize = 256;

/// What the source of a pair told of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// What it told.
    pub detail: Detail,
    /// How long ago.
    pub age: Duration,
}

/// Why the source of a pair told nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DescribeError {
    /// It does not speak our protocol.
    #[error("{0} is a bot of the original, which tells no details")]
    Original(NodeName),
    /// So many are asked just now that it has to wait.
    #[error("too many details are being asked for; try again in a second")]
    Busy,
    /// It did not answer.
    #[error("{0} could not be asked: {1}")]
    Unanswered(NodeName, String),
}

type Kept = HashMap<(Instance, NodeName), (Instant, Result<Detail, DescribeError>)>;

/// Asks sources. Clones share what is under way and what is kept.
#[derive(Clone, Debug)]
pub(crate) struct Describer {
    links: Arc<Links>,
    /// Where connections to peers live.
    runtime: Handle,
    under_way: Arc<Semaphore>,
    kept: Arc<Mutex<Kept>>,
}

impl Describer {
    pub(crate) fn new(links: Arc<Links>, runtime: Handle) -> Self {
        Self {
            links,
            runtime,
            under_way: Arc::new(Semaphore::new(UNDER_WAY_MAX)),
            kept: Arc::default(),
        }
    }

    /// Asks `source`, as the instance `from`, what it knows of its pair to `target`.
    pub(crate) async fn describe(
        &self,
        from: Instance,
        source: &MemberView,
        target: &NodeName,
    ) -> Result<Described, DescribeError> {
        let name = &source.record.name;
        if v1::is_guest(&source.record) {
            return Err(DescribeError::Original(name.clone()));
        }
        let key = (source.record.instance, target.clone());
        if let Some((at, told)) = self.kept(&key) {
            return told.map(|detail| Described { detail, age: at.elapsed() });
        }
        let Ok(permit) = Arc::clone(&self.under_way).try_acquire_owned() else {
            return Err(DescribeError::Busy);
        };
        let (links, record, target) =
            (Arc::clone(&self.links), Arc::clone(&source.record), target.clone());
        let asking = self.runtime.spawn(async move {
            let _permit = permit;
            let asked = links.describe(&record, from, &target);
            match tokio::time::timeout(PATIENCE, asked).await {
                Ok(told) => told.map_err(|error| error.detail),
                Err(_) => Err(format!("no answer within {} s", PATIENCE.as_secs())),
            }
        });
        let told = asking.await.unwrap_or_else(|_| Err("this bot is ending".to_owned()));
        let told = told.map_err(|why| DescribeError::Unanswered(name.clone(), why));
        self.keep(key, told.clone());
        told.map(|detail| Described { detail, age: Duration::ZERO })
    }

    fn kept(&self, key: &(Instance, NodeName)) -> Option<(Instant, Result<Detail, DescribeError>)> {
        let kept = canary_net::lock(&self.kept);
        kept.get(key).filter(|(at, _)| at.elapsed() < KEPT).cloned()
    }

    fn keep(&self, key: (Instance, NodeName), told: Result<Detail, DescribeError>) {
        let mut kept = canary_net::lock(&self.kept);
        kept.retain(|_, (at, _)| at.elapsed() < KEPT);
        if kept.len() >= KEPT_MAX {
            let oldest = kept.iter().min_by_key(|(_, (at, _))| *at).map(|(key, _)| key.clone());
            oldest.and_then(|key| kept.remove(&key));
        }
        kept.insert(key, (Instant::now(), told));
    }
}
