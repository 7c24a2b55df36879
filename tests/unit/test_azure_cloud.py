import pytest

from provisioner.azure.cloud import cloud_for


@pytest.mark.parametrize(
    ("name", "endpoint", "authority", "scope"),
    [
        (
            "public",
            "https://management.azure.com",
            "https://login.microsoftonline.com",
            "https://management.azure.com/.default",
        ),
        (
            "USGovernment",
            "https://management.usgovcloudapi.net",
            "https://login.microsoftonline.us",
            "https://management.core.usgovcloudapi.net/.default",
        ),
        (
            "china",
            "https://management.chinacloudapi.cn",
            "https://login.chinacloudapi.cn",
            "https://management.chinacloudapi.cn/.default",
        ),
    ],
)
def test_known_clouds(name: str, endpoint: str, authority: str, scope: str) -> None:
    cloud = cloud_for(name)
    assert (cloud.endpoint, cloud.authority, cloud.scope) == (endpoint, authority, scope)


def test_the_authority_of_a_known_cloud_may_be_replaced() -> None:
    cloud = cloud_for("public", authority="https://login.example.com/")
    assert cloud.authority == "https://login.example.com"
    assert cloud.endpoint == "https://management.azure.com"


def test_a_custom_cloud() -> None:
    cloud = cloud_for("custom", endpoint="https://localhost:8443/", authority="https://localhost:8443/")
    assert cloud.endpoint == cloud.audience == cloud.authority == "https://localhost:8443"
    assert cloud.scope == "https://localhost:8443/.default"


def test_a_custom_cloud_with_an_audience_of_its_own() -> None:
    cloud = cloud_for("custom", endpoint="https://arm.local", audience="https://management.adfs.local/guid/")
    assert cloud.scope == "https://management.adfs.local/guid/.default"
    assert cloud.authority == "https://login.microsoftonline.com"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"name": "germany"}, "public, usgovernment, china, custom"),
        ({"name": "custom"}, "needs the ARM endpoint"),
        ({"name": "public", "endpoint": "https://a"}, "goes with cloud 'custom' only"),
        ({"name": "china", "audience": "https://a"}, "goes with cloud 'custom' only"),
        ({"name": "custom", "endpoint": "http://localhost"}, "must be an https URL"),
        ({"name": "custom", "endpoint": "https://arm.local/path"}, "without a path"),
        ({"name": "custom", "endpoint": "https://arm.local?x=1"}, "without a path"),
        ({"name": "custom", "endpoint": "https://user:hunter2@arm.local"}, "without user and password"),
        ({"name": "custom", "endpoint": "https://arm.local:port"}, "must be an https URL"),
        ({"name": "custom", "endpoint": "https://"}, "must be an https URL"),
        ({"name": "custom", "endpoint": "https://{endpoint}"}, "must be an https URL"),
        ({"name": "public", "authority": "login.microsoftonline.com"}, "authority host must be an https URL"),
    ],
)
def test_what_is_no_cloud_is_refused_and_says_what_may_be(arguments: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError) as caught:
        cloud_for(**arguments)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)
