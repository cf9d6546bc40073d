//! The webhook of a repository that is followed. It is a convenience: whatever keeps it from
//! hearing costs the stack nothing but the time until the repository is asked again.

use std::io::Read;
use std::path::Path;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::error::CommandError;
use crate::api::webhook::{self, Secret};
use crate::driver::because;
use crate::reconcile::handle::{EventKind, Handle, Level};
use crate::reconcile::sync::Orders;
use crate::spec::model::Webhook;

/// The first pause before another try; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST: Duration = Duration::from_secs(60);
/// The largest file that is taken for a secret, in bytes.
const SECRET_LIMIT: u64 = 64 << 10;

/// Demands that the secret can be had, of somebody who is there to mend it.
///
/// # Errors
/// What is wrong with it.
pub fn demand(wanted: &Webhook) -> Result<(), CommandError> {
    secret(&wanted.secret_file)
        .map(|_| ())
        .map_err(CommandError::new)
}

/// Hears pushes until `shutdown`. What keeps it from that is warned of once, shown by the status,
/// and tried again: at boot an address or a disk may come later than the controller.
pub async fn attend(wanted: Webhook, handle: Handle, orders: Orders, shutdown: CancellationToken) {
    let tell = async |kind, level, text: String| {
        // A controller that ends has nobody to tell.
        let _ = handle.tell(kind, level, text, None).await;
    };
    let mut told = None;
    let mut pause = PAUSE;
    let (listener, secret) = loop {
        let why = match open(&wanted).await {
            Ok(open) => break open,
            Err(why) => why,
        };
        orders.note_deaf(Some(why.clone()));
        if told.as_ref() != Some(&why) {
            let text = format!("{why}; it is tried again, and the repository asked meanwhile");
            tell(EventKind::Warning, Level::Warning, text).await;
            told = Some(why);
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST);
    };
    orders.note_deaf(None);
    if told.is_some() {
        let text = format!("pushes are heard on {}", wanted.listen);
        tell(EventKind::Other, Level::Notice, text).await;
    }
    if let Err(error) = webhook::serve(listener, secret, orders, shutdown).await {
        tracing::warn!("cannot hear pushes any more: {error}");
    }
}

async fn open(wanted: &Webhook) -> Result<(TcpListener, Secret), String> {
    let file = wanted.secret_file.clone();
    let read = tokio::task::spawn_blocking(move || secret(&file)).await;
    let secret = read.unwrap_or_else(|_| Err("cannot read the webhook's secret".to_owned()))?;
    let listener = TcpListener::bind(wanted.listen).await.map_err(|error| {
        let why = because(&error);
        format!("cannot hear pushes on {}: {why}", wanted.listen)
    })?;
    Ok((listener, secret))
}

fn secret(file: &Path) -> Result<Secret, String> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut text = Vec::new();
        let file = std::fs::File::open(file)?;
        file.take(SECRET_LIMIT).read_to_end(&mut text)?;
        Ok(text)
    };
    let text = read().map_err(|error| because(&error));
    let secret = text.and_then(|text| Secret::new(&text));
    secret.map_err(|why| {
        format!(
            "cannot take the webhook's secret from `{}`: {why}",
            file.display()
        )
    })
}
