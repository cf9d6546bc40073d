//! The client's side: one connection a request.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

use super::{Apply, Down, Explain, Operate, Refusal, SyncOrder, Taken, Version};
use crate::plan::explain::Explanation;
use crate::plan::saved::SavedPlan;
use crate::plan::view::PlanView;
use crate::reconcile::handle::{Handle, Happening, Proposal, SpecText, StackStatus, Verb};
use crate::reconcile::sync::{SourceStatus, Word};
use crate::spec::node::NodeId;

/// The largest answer that is read, in bytes: plans hold whole files.
const ANSWER_LIMIT: usize = 64 << 20;
/// The longest line of the story, in bytes.
const LINE_LIMIT: usize = 1 << 20;
/// For answers that compile a spec first.
const COMPILING: Duration = Duration::from_secs(60);
/// For answers that ask a repository first, and compile a spec then.
const ASKING: Duration = Duration::from_secs(5 * 60);

/// Why the controller gave no good answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no controller runs for stack `{stack}`")]
    NotRunning {
        /// Which.
        stack: String,
    },
    /// We may not connect.
    #[error("cannot reach the controller of stack `{stack}`: {cause}")]
    Unreachable {
        /// Which.
        stack: String,
        /// What the kernel said.
        cause: String,
    },
    /// It says no.
    #[error("{error}")]
    Refused {
        /// Why.
        error: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// It ended, or answered what we cannot read.
    #[error("the controller of stack `{stack}` gave no answer: {cause}")]
    Broken {
        /// Which.
        stack: String,
        /// What happened.
        cause: String,
    },
}

/// A running controller, as its control socket shows it.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    stack: String,
}

/// The story of a controller, from now on.
pub struct Story {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Client {
    /// The controller of `stack` that listens on `socket`.
    ///
    /// # Errors
    /// [`ClientError::NotRunning`] when there is no socket, or nobody behind it.
    pub async fn connect(socket: &Path, stack: &str) -> Result<Client, ClientError> {
        let client = Client {
            socket: socket.to_owned(),
            stack: stack.to_owned(),
        };
        client.stream().await?;
        Ok(client)
    }

    /// How the stack stands.
    ///
    /// # Errors
    /// See [`ClientError`]; so for all that follow.
    pub async fn status(&self) -> Result<StackStatus, ClientError> {
        self.get("/v1/status", Some(Handle::PATIENCE)).await
    }

    /// The controller's version.
    pub async fn version(&self) -> Result<Version, ClientError> {
        self.get("/v1/version", Some(Handle::PATIENCE)).await
    }

    /// What would be done for `spec`.
    pub async fn plan(&self, spec: &SpecText) -> Result<PlanView, ClientError> {
        self.post("/v1/plan", spec, Some(COMPILING)).await
    }

    /// The same, and the form in which it is kept in a file.
    pub async fn proposal(&self, spec: &SpecText) -> Result<Proposal, ClientError> {
        self.post("/v1/proposal", spec, Some(COMPILING)).await
    }

    /// The whole story of what `name` stands for, under `spec` or under the one in force.
    pub async fn explain(
        &self,
        spec: Option<SpecText>,
        name: &str,
    ) -> Result<Explanation, ClientError> {
        let name = name.to_owned();
        self.post("/v1/explain", &Explain { spec, name }, Some(COMPILING))
            .await
    }

    /// Hands over a spec, whole or as far as a saved plan of it goes; answers its generation.
    pub async fn apply(
        &self,
        spec: SpecText,
        allow_empty: bool,
        saved: Option<SavedPlan>,
    ) -> Result<u64, ClientError> {
        self.hand_over(Apply {
            spec,
            allow_empty,
            saved: saved.map(Box::new),
            rollback_to: None,
        })
        .await
    }

    /// Hands over the text of generation `to` again; answers the generation that it becomes.
    pub async fn roll_back(
        &self,
        spec: SpecText,
        allow_empty: bool,
        to: u64,
    ) -> Result<u64, ClientError> {
        self.hand_over(Apply {
            spec,
            allow_empty,
            saved: None,
            rollback_to: Some(to),
        })
        .await
    }

    async fn hand_over(&self, body: Apply) -> Result<u64, ClientError> {
        let taken: Taken = self.post("/v1/apply", &body, Some(COMPILING)).await?;
        Ok(taken.generation)
    }

    /// Takes the stack down; answers when all is gone. How long that takes is up to the grace
    /// periods of the spec, so it has no limit here.
    pub async fn down(&self, purge: bool, kill: bool) -> Result<(), ClientError> {
        self.post("/v1/down", &Down { purge, kill }, None).await
    }

    /// Starts, stops or restarts by name; answers the nodes meant.
    pub async fn operate(
        &self,
        verb: Verb,
        names: Vec<String>,
    ) -> Result<Vec<NodeId>, ClientError> {
        let body = Operate { verb, names };
        self.post("/v1/operate", &body, Some(Handle::PATIENCE))
            .await
    }

    /// Asks the repository, suspends its following or resumes it; answers how it stands then.
    pub async fn sync(&self, word: Word) -> Result<SourceStatus, ClientError> {
        let body = SyncOrder { word };
        self.post("/v1/sync", &body, Some(ASKING)).await
    }

    /// Has the spec's file read again, or the repository asked; answers the generation that is in
    /// force then.
    pub async fn reload(&self) -> Result<u64, ClientError> {
        let taken: Taken = self.post("/v1/reload", &(), Some(ASKING)).await?;
        Ok(taken.generation)
    }

    /// Ends the controller; workloads live on.
    pub async fn leave(&self) -> Result<(), ClientError> {
        self.post("/v1/leave", &(), Some(Handle::PATIENCE)).await
    }

    /// The story: nothing that happens after this has answered is missed.
    pub async fn events(&self) -> Result<Story, ClientError> {
        let request = self.request(Method::GET, "/v1/events", Vec::new())?;
        let response = self
            .within(Some(Handle::PATIENCE), self.send(request))
            .await?;
        if !response.status().is_success() {
            return Err(self.refusal(response).await);
        }
        let mut story = Story {
            body: response.into_body(),
            buffer: Vec::new(),
        };
        let begun = self
            .within(Some(Handle::PATIENCE), async { Ok(story.line().await) })
            .await?;
        match begun {
            Some(_) => Ok(story),
            None => Err(self.broken("the story ended at once")),
        }
    }

    async fn stream(&self) -> Result<UnixStream, ClientError> {
        UnixStream::connect(&self.socket)
            .await
            .map_err(|error| match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    ClientError::NotRunning {
                        stack: self.stack.clone(),
                    }
                }
                _ => ClientError::Unreachable {
                    stack: self.stack.clone(),
                    cause: error.to_string(),
                },
            })
    }

    fn broken(&self, cause: impl ToString) -> ClientError {
        ClientError::Broken {
            stack: self.stack.clone(),
            cause: cause.to_string(),
        }
    }

    fn request(
        &self,
        method: Method,
        route: &str,
        body: Vec<u8>,
    ) -> Result<Request<Full<Bytes>>, ClientError> {
        Request::builder()
            .method(method)
            .uri(route)
            .header("host", "hatchery")
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| self.broken(error))
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, ClientError> {
        let stream = TokioIo::new(self.stream().await?);
        let (mut sender, connection) = http1::handshake(stream)
            .await
            .map_err(|error| self.broken(error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("the control connection ended: {error}");
            }
        });
        sender
            .send_request(request)
            .await
            .map_err(|error| self.broken(error))
    }

    async fn within<T>(
        &self,
        patience: Option<Duration>,
        asked: impl Future<Output = Result<T, ClientError>>,
    ) -> Result<T, ClientError> {
        let Some(patience) = patience else {
            return asked.await;
        };
        match tokio::time::timeout(patience, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(self.broken(format!("nothing came within {}s", patience.as_secs()))),
        }
    }

    async fn refusal(&self, response: Response<Incoming>) -> ClientError {
        let code = response.status();
        let refusal = Limited::new(response.into_body(), LINE_LIMIT)
            .collect()
            .await
            .ok()
            .and_then(|body| serde_json::from_slice::<Refusal>(&body.to_bytes()).ok());
        match refusal {
            Some(Refusal { error, hint }) => ClientError::Refused { error, hint },
            None => self.broken(format!("it answered {code}")),
        }
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<T, ClientError> {
        let response = self.send(request).await?;
        if response.status() != StatusCode::OK {
            return Err(self.refusal(response).await);
        }
        let body = Limited::new(response.into_body(), ANSWER_LIMIT)
            .collect()
            .await
            .map_err(|error| self.broken(error))?;
        serde_json::from_slice(&body.to_bytes()).map_err(|error| self.broken(error))
    }

    async fn get<T: DeserializeOwned>(
        &self,
        route: &str,
        patience: Option<Duration>,
    ) -> Result<T, ClientError> {
        let request = self.request(Method::GET, route, Vec::new())?;
        self.within(patience, self.exchange(request)).await
    }

    async fn post<B: Serialize, T: DeserializeOwned>(
        &self,
        route: &str,
        body: &B,
        patience: Option<Duration>,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|error| self.broken(error))?;
        let request = self.request(Method::POST, route, body)?;
        self.within(patience, self.exchange(request)).await
    }
}

impl Story {
    /// The next line of it; `None` when the controller ended. Dropping the future before it
    /// answers loses nothing.
    pub async fn next(&mut self) -> Option<Happening> {
        loop {
            let line = self.line().await?;
            // A line of a later version that we cannot read is passed over.
            if let Ok(happening) = serde_json::from_slice(&line) {
                return Some(happening);
            }
        }
    }

    async fn line(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let rest = self.buffer.split_off(end + 1);
                return Some(std::mem::replace(&mut self.buffer, rest));
            }
            if self.buffer.len() > LINE_LIMIT {
                return None;
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(bytes) = frame.into_data() {
                self.buffer.extend_from_slice(&bytes);
            }
        }
    }
}
