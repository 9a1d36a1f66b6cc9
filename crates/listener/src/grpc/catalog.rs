//! Publish: changes from the control plane.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use weir_proto::v1::catalog_server::Catalog;
use weir_proto::{FieldError, v1};
use weir_store::PublishError;

use crate::caller;
use crate::catalog::read_publication;
use crate::server::Shared;
use crate::status::Failure;

/// Most changes in one call.
const CHANGES_MAX: usize = 10_000;

pub(crate) struct Service(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl Catalog for Service {
    async fn publish(
        &self,
        request: Request<v1::PublishRequest>,
    ) -> Result<Response<v1::PublishResponse>, Status> {
        caller::publisher(self.0.config.publish_token.as_ref(), request.metadata())?;
        let message = request.into_inner();
        if message.changes.len() > CHANGES_MAX {
            let error = FieldError::new("changes", format!("has more than {CHANGES_MAX} entries"));
            return Err(Failure::Field(error).into());
        }
        let publication = read_publication(&message).map_err(Failure::Field)?;
        match self.0.catalog.put(publication).await {
            // Sent again, or overtaken by a later revision: the sender may go on.
            Ok(()) | Err(PublishError::Older { .. } | PublishError::OtherContent { .. }) => {}
            Err(PublishError::Store(error)) => return Err(Failure::Store(error).into()),
        }
        let revision = self.0.engine.store.revision().await.map_err(Failure::Store)?;
        Ok(Response::new(v1::PublishResponse { revision }))
    }
}
