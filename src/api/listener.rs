//! The embedded registry's address: opened, moved and closed as the spec says.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::consul::{self, Settings, Token};
use super::serve::{Limits, Patience, serve};
use crate::driver::{Clock, Commands, DriverError, ErrorKind, Result};
use crate::plan::world::RegistryView;
use crate::reconcile::host::Listener;
use crate::reconcile::shared::SharedCatalog;
use crate::spec::model::Registry;

/// Silences may be longer than the longest blocking query with its jitter.
const LIMITS: Limits = Limits {
    all: 1024,
    guests: 768,
    one_guest: 256,
    patience: Patience::Silence(Duration::from_secs(11 * 60)),
};

/// The listener of one controller.
pub struct RegistryListener {
    catalog: SharedCatalog,
    clock: Arc<dyn Clock>,
    commands: Arc<dyn Commands>,
    open: Mutex<Option<Open>>,
    runtime: Handle,
}

/// A registry that answers over HTTP.
struct Open {
    registry: Registry,
    /// What `registry` asks for, or a free port's address in its place.
    address: SocketAddr,
    token: Token,
    shutdown: CancellationToken,
}

impl RegistryListener {
    /// One that is not open yet, and serves on `runtime` once it is.
    pub fn new(
        runtime: Handle,
        catalog: SharedCatalog,
        clock: Arc<dyn Clock>,
        commands: Arc<dyn Commands>,
    ) -> Self {
        RegistryListener {
            catalog,
            clock,
            commands,
            open: Mutex::new(None),
            runtime,
        }
    }

    fn close(&self) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(open) = open.take() {
            open.shutdown.cancel();
        }
    }

    async fn bind(&self, address: SocketAddr) -> Result<TcpListener> {
        // An address that was served a moment ago may need one more moment.
        let mut last = None;
        for _ in 0..20 {
            match TcpListener::bind(address).await {
                Ok(listener) => return Ok(listener),
                Err(error) => last = Some(error),
            }
            if self.commands.port_holder(address).is_some() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let why = last.map_or_else(String::new, |error| error.to_string());
        let (kind, message) = match self.commands.port_holder(address) {
            Some(holder) => (
                ErrorKind::Foreign,
                format!(
                    "cannot open the registry on {address}: it is held by {holder}; stop that, \
                     or choose another `registry.embedded.http`"
                ),
            ),
            None => (
                ErrorKind::Failed,
                format!("cannot open the registry on {address}: {why}"),
            ),
        };
        Err(DriverError { message, kind })
    }

    async fn reopen(&self, registry: Registry) -> Result<()> {
        let read = read_token(&registry);
        {
            let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(open) = open.as_mut() {
                // A token that was revoked must not go on counting because there is no new one.
                open.token
                    .set(read.as_ref().ok().and_then(Option::as_deref));
                if open.registry.http == registry.http {
                    read?;
                    open.registry = registry;
                    return Ok(());
                }
            }
        }
        let read = read?;
        self.close();
        let Some(http) = registry.http else {
            return Ok(());
        };
        let token = Token::default();
        token.set(read.as_deref());
        let listener = self.bind(http).await?;
        let address = listener.local_addr().unwrap_or(http);
        let shutdown = CancellationToken::new();
        let settings = Settings {
            token: token.clone(),
            clock: self.clock.clone(),
            shutdown: shutdown.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        let router = consul::router(self.catalog.clone(), settings);
        tokio::spawn(serve(listener, router, LIMITS, shutdown.clone()));
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        *open = Some(Open {
            registry,
            address,
            token,
            shutdown,
        });
        Ok(())
    }
}

/// The token lies in a file, so that no spec, plan or log holds it.
fn read_token(registry: &Registry) -> Result<Option<String>> {
    let Some(path) = &registry.token_file else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(path).map_err(|error| DriverError {
        message: format!(
            "cannot read the registry's token from `{}`: {error}",
            path.display()
        ),
        kind: ErrorKind::Failed,
    })?;
    let token = text.trim();
    if token.is_empty() {
        return Err(DriverError {
            message: format!("the registry's token file `{}` is empty", path.display()),
            kind: ErrorKind::Failed,
        });
    }
    Ok(Some(token.to_owned()))
}

impl Listener for RegistryListener {
    fn open(&self, registry: &Registry) -> Result<()> {
        self.runtime.block_on(self.reopen(registry.clone()))
    }

    fn look(&self) -> RegistryView {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(open) = open.as_ref() else {
            return RegistryView::opened(&Registry::default());
        };
        RegistryView {
            http: Some(open.address),
            token_changed: match read_token(&open.registry) {
                Ok(Some(token)) => !open.token.is(token.as_bytes()),
                Ok(None) => false,
                Err(_) => true,
            },
            ..RegistryView::opened(&open.registry)
        }
    }
}
