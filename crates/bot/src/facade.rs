//! Joins what does and what shows.

use std::sync::Arc;
use std::time::Duration;

use canary_api::{Content, Messages, Source, Telling, Transport};
use canary_core::{MemberView, NodeName, Snapshot};
use canary_insight::Report;
use canary_net::Guard;
use canary_node::{Direction, Kind, Reader};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::explain::{Explained, explain};

/// Serves the API of the bot behind `reader` on `listener` until `stop`: REST, `/metrics` and the
/// health paths, for holders of one of the tokens of `guard`; `content` says what it shows. It may
/// run on another runtime than the bot.
pub async fn serve_api(
    reader: Reader,
    listener: std::net::TcpListener,
    guard: Guard,
    content: Content,
    stop: CancellationToken,
) {
    // A listener belongs to the runtime that polls it: it is registered here, wherever it was
    // bound.
    let listener =
        match listener.set_nonblocking(true).and_then(|()| TcpListener::from_std(listener)) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "cannot serve the API");
                return;
            }
        };
    let (explained, explaining) = explain(reader.clone(), stop.clone());
    let serving = serve(reader, explained, listener, guard, content, stop.clone());
    tokio::pin!(serving);
    tokio::select! {
        () = &mut serving => return,
        _ = explaining => {}
    }
    if stop.is_cancelled() {
        serving.await;
    } else {
        // Better no answer than one that is old and looks new.
        tracing::error!(
            "the API ends, for what explains the mesh failed by a fault of its own; please report it"
        );
    }
}

/// The same with an explanation that others read, too.
pub(crate) async fn serve(
    reader: Reader,
    explained: Explained,
    listener: TcpListener,
    guard: Guard,
    content: Content,
    stop: CancellationToken,
) {
    let config = canary_api::Config { guard, content, version: crate::VERSION };
    canary_api::serve(listener, config, Arc::new(ReaderSource { reader, explained }), stop).await;
}

struct ReaderSource {
    reader: Reader,
    explained: Explained,
}

impl Source for ReaderSource {
    fn snapshot(&self) -> Arc<Snapshot> {
        self.reader.snapshot()
    }

    fn report(&self) -> Arc<Report> {
        self.explained.report()
    }

    fn snapshot_age(&self) -> Duration {
        self.reader.snapshot_age()
    }

    fn describe(&self, source: MemberView, target: NodeName) -> Telling {
        let reader = self.reader.clone();
        Box::pin(async move {
            let told =
                reader.describe(&source, &target).await.map_err(|error| error.to_string())?;
            Ok((told.detail, told.age))
        })
    }

    fn transport(&self) -> Transport {
        let stats = self.reader.stats();
        let each = |kind: Kind| {
            Direction::ALL.map(|direction| Messages {
                kind: kind.as_str(),
                direction: direction.as_str(),
                count: stats.traffic.messages(kind, direction),
                bytes: stats.traffic.bytes(kind, direction),
            })
        };
        Transport {
            messages: Kind::ALL.iter().flat_map(|kind| each(*kind)).collect(),
            refused: stats.by_reason(),
            log_lost: crate::logs::lost().to_vec(),
        }
    }
}
