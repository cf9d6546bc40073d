//! Who may register what: room, and whose the ids and names are.

use std::collections::BTreeSet;

use super::Catalog;
use crate::registry::model::{CatalogError, Origin, Registration};
use crate::registry::{MAX_CLIENT_SERVICES, MAX_SERVICES};

impl Catalog {
    /// Whether there is room and right; answers the outsiders' services that must go first.
    pub(super) fn admit(
        &self,
        registration: &Registration,
    ) -> Result<BTreeSet<String>, CatalogError> {
        let id = &registration.id;
        let outside = registration.origin.is_outside();
        let present = self.entries.get(id);
        let present = present.map(|present| present.registration.origin);
        match (present, outside) {
            (Some(Origin::Stack), true) => return Err(CatalogError::Owned { id: id.clone() }),
            (Some(Origin::Client), false) => return Err(self.held(id, id)),
            _ => {}
        }
        let mut displaced = self.name(registration)?;
        let gives_way = present == Some(Origin::Guest) && !outside;
        displaced.extend(gives_way.then(|| id.clone()));
        for check in &registration.checks {
            let Some(holder) = self.holders.get(&check.id).filter(|holder| *holder != id) else {
                continue;
            };
            let theirs = self.entries.get(holder);
            match theirs.map(|entry| entry.registration.origin) {
                Some(Origin::Guest) if !outside => drop(displaced.insert(holder.clone())),
                Some(Origin::Client) if !outside => return Err(self.held(id, holder)),
                _ => {
                    return Err(CatalogError::CheckTaken {
                        id: id.clone(),
                        check: check.id.clone(),
                        holder: holder.clone(),
                    });
                }
            }
        }
        self.room(registration)?;
        Ok(displaced)
    }

    /// What the stack finds in its place.
    fn held(&self, id: &str, holder: &str) -> CatalogError {
        let theirs = self.entries.get(holder).map(|entry| &entry.registration);
        CatalogError::Held {
            id: id.to_owned(),
            holder: holder.to_owned(),
            service: theirs.map_or_else(String::new, |theirs| theirs.service.clone()),
            address: theirs.map_or_else(String::new, |theirs| {
                let address = match theirs.address.as_str() {
                    "" => self.config.address.as_str(),
                    address => address,
                };
                format!("{address}:{}", theirs.port)
            }),
        }
    }

    /// A guest neither joins the stack's instances nor stays beside them: who reads the service
    /// would send it requests that are theirs, or could not render what they are in.
    fn name(&self, registration: &Registration) -> Result<BTreeSet<String>, CatalogError> {
        let known = self.names.get(&registration.service);
        match (registration.origin, known) {
            (Origin::Guest, Some(known)) if known.reserved => Err(CatalogError::Reserved {
                id: registration.id.clone(),
                service: registration.service.clone(),
            }),
            (Origin::Stack, Some(known)) if !known.reserved => {
                let guest = |id: &&String| {
                    let entry = self.entries.get(*id);
                    entry.is_some_and(|entry| entry.registration.origin == Origin::Guest)
                };
                Ok(known.ids.iter().filter(guest).cloned().collect())
            }
            _ => Ok(BTreeSet::new()),
        }
    }

    fn room(&self, registration: &Registration) -> Result<(), CatalogError> {
        if self.entries.contains_key(&registration.id) {
            return Ok(());
        }
        let full = |what, limit| CatalogError::Full {
            id: registration.id.clone(),
            what,
            limit,
        };
        if self.entries.len() >= MAX_SERVICES {
            return Err(full("services", MAX_SERVICES));
        }
        if registration.origin.is_outside() && self.clients >= MAX_CLIENT_SERVICES {
            return Err(full("services from outside the stack", MAX_CLIENT_SERVICES));
        }
        Ok(())
    }
}
