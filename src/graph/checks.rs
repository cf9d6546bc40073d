//! Checks, expressions evaluated for one instance.

use std::collections::BTreeMap;

use super::Compiler;
use super::at::At;
use super::desired::{CheckNode, ProbeNode};
use super::evaluate::Side;
use super::names;
use crate::spec::model::{Check, CheckRef, Expr, HttpProbe, Probe};
use crate::spec::node::{Kind, NodeId};
use crate::template::expr::Scope;

impl<'a> Compiler<'a> {
    /// A check and where its definition stands: in place at `at`, or under its name.
    pub(super) fn check_definition<'r>(
        &mut self,
        at: &At<'r>,
        reference: &'r CheckRef,
    ) -> Option<(At<'r>, &'r Check)>
    where
        'a: 'r,
    {
        const SECTION: At<'static> = At::section("checks");
        match reference {
            CheckRef::Inline(check) => Some((*at, check)),
            CheckRef::Named(name) => {
                let found = self.spec.checks.get(name);
                if found.is_none() {
                    let message = format!("`checks/{name}` does not exist");
                    self.problems.add(at, message);
                }
                found.map(|check| (SECTION.key(name), check))
            }
        }
    }

    /// One check of an instance. Its id is left empty: the caller knows what it is of.
    pub(super) fn check(
        &mut self,
        at: &At<'_>,
        check: &Check,
        name: &str,
        scope: &Scope<'_>,
        target: Option<&NodeId>,
    ) -> Option<CheckNode> {
        Some(CheckNode {
            id: String::new(),
            name: name.to_owned(),
            probe: self.probe(at, &check.probe, scope, target)?,
            interval: check.interval,
            timeout: check.timeout,
            retries: check.retries.max(1),
            start_period: check.start_period,
            start_interval: check.start_interval.unwrap_or(check.interval),
        })
    }

    fn probe(
        &mut self,
        at: &At<'_>,
        probe: &Probe,
        scope: &Scope<'_>,
        target: Option<&NodeId>,
    ) -> Option<ProbeNode> {
        match probe {
            Probe::Http(http) => self.http(&at.key("http"), http, scope),
            Probe::Tcp(address) => self
                .endpoint(&at.key("tcp"), address, scope)
                .map(ProbeNode::Tcp),
            Probe::Exec(words) => {
                let inside = target.is_some_and(|target| target.kind == Kind::Containers);
                let side = if inside { Side::Inside } else { Side::Host };
                let command = self.command(&at.key("exec"), words, scope, side)?;
                Some(ProbeNode::Exec {
                    command,
                    target: target.cloned(),
                })
            }
            Probe::Ttl(ttl) => Some(ProbeNode::Ttl(*ttl)),
        }
    }

    fn http(&mut self, at: &At<'_>, http: &HttpProbe, scope: &Scope<'_>) -> Option<ProbeNode> {
        let long = at.key("url");
        let place = if self.problems.has(&long) { long } else { *at };
        let url = self.text(&place, &http.url, scope);
        let url = url.filter(|url| {
            let known = ["http://", "https://"]
                .iter()
                .any(|scheme| url.len() > scheme.len() && url.starts_with(scheme));
            if !known {
                let message = format!("`{url}` is not a URL");
                let help = "write it as `http://ADDRESS:PORT/PATH`";
                self.problems.advise(&place, message, help);
            }
            known
        });
        let list = at.key("headers");
        let headers: Vec<Option<(String, String)>> = http
            .headers
            .iter()
            .map(|(name, value)| {
                let value = self.text(&list.key(name), value, scope)?;
                Some((name.clone(), value))
            })
            .collect();
        Some(ProbeNode::Http {
            url: url?,
            method: http.method.clone(),
            headers: headers.into_iter().collect::<Option<BTreeMap<_, _>>>()?,
            status: http.status.clone(),
            body: http.body.clone(),
        })
    }

    /// An `ADDRESS:PORT`.
    pub(super) fn endpoint(
        &mut self,
        at: &At<'_>,
        expression: &Expr,
        scope: &Scope<'_>,
    ) -> Option<String> {
        let text = self.text(at, expression, scope)?;
        if names::is_endpoint(&text) {
            return Some(text);
        }
        self.problems.advise(
            at,
            format!("`{text}` is not an address with a port"),
            "write it as `ADDRESS:PORT`, as in `127.0.0.1:80`",
        );
        None
    }
}
