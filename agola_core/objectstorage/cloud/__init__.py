"""Object storage on Google Cloud Storage (gs://) and Azure Blob Storage (az://), over obstore."""
