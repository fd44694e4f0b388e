"""The CDK app: what runs where on AWS. `cdk.json` runs `python -m sampan.stacks`.

    function.toml + package.json + stage → Project → Store · Serve · Api · Gpu · Rollout · Observe

`names` and `config` do not import the CDK, so that the command line may read them.
"""
