//! Who asks: gateways prove themselves by a token, the control plane by another, operators by a third.

use tonic::Status;
use tonic::metadata::MetadataMap;
use weir_core::{Secret, ServiceId};

use crate::config::{Config, GatewayToken};
use crate::status::Failure;

/// The token of `authorization: Bearer <token>`.
fn bearer(metadata: &MetadataMap) -> Option<Secret> {
    let value = metadata.get("authorization")?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Secret::new(token.trim()))
}

/// The gateway that a call comes from.
///
/// # Errors
/// UNAUTHENTICATED.
pub(crate) fn gateway<'a>(
    gateways: &'a [GatewayToken],
    metadata: &MetadataMap,
) -> Result<&'a GatewayToken, Status> {
    let token = bearer(metadata).ok_or_else(|| Status::unauthenticated("a gateway token is needed"))?;
    gateway_of(gateways, &token).ok_or_else(|| Status::unauthenticated("the gateway token is not known"))
}

/// The gateway whose token this is; an unknown one is logged.
///
/// Every known token is compared, each in constant time, so the time taken tells nothing.
pub(crate) fn gateway_of<'a>(gateways: &'a [GatewayToken], token: &Secret) -> Option<&'a GatewayToken> {
    let mut found = None;
    for gateway in gateways {
        if gateway.token == *token {
            found = Some(gateway);
        }
    }
    if found.is_none() {
        tracing::warn!("a caller with an unknown gateway token was refused");
    }
    found
}

/// Whether a call comes from the control plane.
///
/// # Errors
/// UNAUTHENTICATED, or FAILED_PRECONDITION where the catalog comes from a file.
pub(crate) fn publisher(publish_token: Option<&Secret>, metadata: &MetadataMap) -> Result<(), Status> {
    let Some(wanted) = publish_token else {
        return Err(Status::failed_precondition("this listener takes its catalog from a file"));
    };
    if bearer(metadata).as_ref() == Some(wanted) {
        Ok(())
    } else {
        Err(Status::unauthenticated("the publisher's token is needed"))
    }
}

/// Whether a call comes from the control plane or from an operator.
///
/// # Errors
/// UNAUTHENTICATED, or FAILED_PRECONDITION where neither has a token.
pub(crate) fn operator(config: &Config, metadata: &MetadataMap) -> Result<(), Status> {
    let wanted = [&config.operator_token, &config.publish_token];
    if wanted.iter().all(|token| token.is_none()) {
        let text = "this listener has no operator_token (nor a publish_token): nobody may ask this";
        return Err(Status::failed_precondition(text));
    }
    let given = bearer(metadata);
    // Both are compared, each in constant time, so the time taken tells nothing.
    let opened = wanted.into_iter().flatten().filter(|wanted| given.as_ref() == Some(*wanted)).count();
    if opened > 0 {
        return Ok(());
    }
    Err(Status::unauthenticated("the operator's or the publisher's token is needed"))
}

impl GatewayToken {
    /// Whether it may ask about a service.
    pub(crate) fn serves(&self, service: &ServiceId) -> bool {
        self.services.as_ref().is_none_or(|services| services.contains(service))
    }

    /// Refuses a service that the token is not for.
    pub(crate) fn check(&self, service: &ServiceId) -> Result<(), Failure> {
        if self.serves(service) { Ok(()) } else { Err(Failure::Forbidden(service.to_string())) }
    }
}
