"""What users write their functions against: ``KubeModel`` and ``KubeDataset``."""
