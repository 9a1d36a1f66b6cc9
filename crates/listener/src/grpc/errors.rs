//! The error lists of services, for who may publish or operate.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use weir_core::ServiceId;
use weir_proto::v1::errors_server::Errors;
use weir_proto::{FieldError, v1};
use weir_store::{ERRORS_KEPT_MAX, ServiceError};

use crate::caller;
use crate::server::Shared;
use crate::status::Failure;

/// Errors on a page, unless the caller says how many.
const PER_PAGE: u32 = 100;

pub(crate) struct Service(pub(crate) Arc<Shared>);

fn read_service(id: &str) -> Result<ServiceId, Failure> {
    id.parse().map_err(|problem| FieldError::new("service_id", problem).into())
}

fn read_per_page(per_page: u32) -> Result<usize, Failure> {
    let per_page = if per_page == 0 { PER_PAGE } else { per_page };
    let per_page = usize::try_from(per_page).unwrap_or(usize::MAX);
    if per_page > ERRORS_KEPT_MAX {
        return Err(FieldError::new("per_page", format!("is more than {ERRORS_KEPT_MAX}")).into());
    }
    Ok(per_page)
}

fn message(error: ServiceError) -> v1::ServiceError {
    let ServiceError { code, message, at, request } = error;
    v1::ServiceError { code, message, at_unix_ms: at.unix_ms().unsigned_abs(), request }
}

#[tonic::async_trait]
impl Errors for Service {
    async fn list_errors(
        &self,
        request: Request<v1::ListErrorsRequest>,
    ) -> Result<Response<v1::ListErrorsResponse>, Status> {
        caller::operator(&self.0.config, request.metadata())?;
        let asked = request.into_inner();
        let service = read_service(&asked.service_id)?;
        let per_page = read_per_page(asked.per_page)?;
        let page = usize::try_from(asked.page).unwrap_or(usize::MAX);
        let found = self.0.engine.store.errors(&service, page, per_page).await.map_err(Failure::Store)?;
        Ok(Response::new(v1::ListErrorsResponse {
            errors: found.errors.into_iter().map(message).collect(),
            total: u32::try_from(found.total).unwrap_or(u32::MAX),
        }))
    }

    async fn delete_errors(
        &self,
        request: Request<v1::DeleteErrorsRequest>,
    ) -> Result<Response<v1::DeleteErrorsResponse>, Status> {
        caller::operator(&self.0.config, request.metadata())?;
        let service = read_service(&request.into_inner().service_id)?;
        self.0.engine.store.forget_errors(&service).await.map_err(Failure::Store)?;
        Ok(Response::new(v1::DeleteErrorsResponse {}))
    }
}
