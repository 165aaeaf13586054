//! Why a command fails.

use std::io;
use std::net::SocketAddr;

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunError {
    #[error("cannot listen on {address} for the API; choose another --api-address or --api-port")]
    Api {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Start(#[from] crate::StartError),
    #[error("{0}")]
    Secrets(String),
    #[error(transparent)]
    Assets(#[from] crate::assets::AssetsError),
    #[error(transparent)]
    Issue(#[from] crate::issue::IssueError),
    #[error(transparent)]
    Ask(#[from] crate::ask::AskError),
    #[error("cannot wait for signals")]
    Signal(#[source] io::Error),
    #[error("this host has no more threads; raise its limit (ulimit -u, pids)")]
    Thread(#[source] io::Error),
    #[error("the system gives no random numbers for a token: {0}; give one by --token-file")]
    Token(String),
    #[error(
        "nobody could read the generated token, for stdout is closed or /dev/null; give one by --token-file"
    )]
    Unread,
    #[error("cannot write to stdout; give a token by --token-file if it was for one")]
    Stdout(#[source] io::Error),
    #[error(
        "the thread {0} ended by a fault of its own; the log above says where. Please report it"
    )]
    Died(&'static str),
    #[error("the bot failed by a fault of its own; the log above says where. Please report it")]
    Failed,
}

impl RunError {
    /// Whether the command line asks for what cannot be.
    pub(crate) fn is_usage(&self) -> bool {
        use crate::ask::AskError;
        use crate::issue::IssueError;
        matches!(
            self,
            Self::Ask(AskError::Url(_) | AskError::UserInfo) | Self::Issue(IssueError::Name { .. })
        )
    }
}
