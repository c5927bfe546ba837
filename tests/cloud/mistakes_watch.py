"""Further mistakes in alarms, topics and the dashboard."""

from contract.shipped import Shipped
from mistakes import alarm, dashboard, mistake, properties


@mistake("every_series_of_an_alarm_has_data")
def the_gateway_renames_a_metric(shipped: Shipped) -> None:
    next(one for one in shipped.catalogue["metrics"] if one["name"] == "PoolUtilization")[
        "name"
    ] = "PoolUse"


@mistake("every_series_of_an_alarm_has_data")
def the_gateway_publishes_under_another_environment(shipped: Shipped) -> None:
    shipped.conf["production"]["cloudwatch"]["environment"] = "prod"


@mistake("every_series_of_an_alarm_has_data")
def an_alarm_watches_a_pool_that_does_not_exist(shipped: Shipped) -> None:
    replaced = 0
    for metric in alarm(shipped, "pool-exhausted-primary")["Metrics"]:
        for pair in metric.get("MetricStat", {}).get("Metric", {}).get("Dimensions", []):
            if pair["Name"] == "Pool":
                pair["Value"], replaced = "postgres", replaced + 1
    assert replaced


@mistake("every_series_of_an_alarm_has_data")
def an_alarm_watches_the_balancer_by_its_arn(shipped: Shipped) -> None:
    for pair in alarm(shipped, "low-health")["Dimensions"]:
        if pair["Name"] == "LoadBalancer":
            pair["Value"] = {"Fn::ImportValue": "datahub-LoadBalancerDns"}


@mistake("metric_math_is_complete")
def metric_math_mixes_periods(shipped: Shipped) -> None:
    metrics = alarm(shipped, "high-error-rate")["Metrics"]
    next(one for one in metrics if "MetricStat" in one)["MetricStat"]["Period"] = 300


@mistake("metric_math_is_complete")
def metric_math_has_eleven_metrics(shipped: Shipped) -> None:
    metrics = alarm(shipped, "high-error-rate")["Metrics"]
    stat = next(one for one in metrics if "MetricStat" in one)
    metrics.extend({**stat, "Id": f"x{place}"} for place in range(8))


@mistake("periods_are_valid")
def an_alarm_looks_back_for_two_days(shipped: Shipped) -> None:
    alarm(shipped, "high-memory").update(Period=3600, EvaluationPeriods=48, DatapointsToAlarm=48)


@mistake("missing_data_is_decided")
def an_alarm_freezes_when_traffic_is_low(shipped: Shipped) -> None:
    alarm(shipped, "high-latency")["EvaluateLowSampleCountPercentile"] = "ignore"


@mistake("missing_data_is_decided")
def an_alarm_does_not_say_what_silence_means(shipped: Shipped) -> None:
    del alarm(shipped, "publisher-silent")["TreatMissingData"]


@mistake("every_alarm_reaches_a_composite")
def an_alarm_is_in_no_composite(shipped: Shipped) -> None:
    resources = shipped.templates["observability"]["Resources"]
    for one in resources.values():
        if one["Type"] == "AWS::CloudWatch::CompositeAlarm":
            one["Properties"]["AlarmRule"] = 'ALARM("datahub-low-health")'


@mistake("somebody_hears_of_every_alarm")
def an_alarm_tells_nobody(shipped: Shipped) -> None:
    resources = shipped.templates["observability"]["Resources"]
    for one in resources.values():
        if one["Type"] == "AWS::CloudWatch::CompositeAlarm":
            one["Properties"]["ActionsEnabled"] = False
    alarm(shipped, "high-cpu").pop("AlarmActions", None)


@mistake("a_topic_has_readers")
def cloudwatch_may_not_publish_to_the_topics(shipped: Shipped) -> None:
    policy = properties(shipped, "observability", "AWS::SNS::TopicPolicy")["PolicyDocument"]
    policy["Statement"] = [one for one in policy["Statement"] if "cloudwatch" not in str(one["Principal"])]


@mistake("a_topic_has_readers")
def nobody_subscribes_to_the_page(shipped: Shipped) -> None:
    resources = shipped.templates["observability"]["Resources"]
    for key, one in list(resources.items()):
        if one["Type"] == "AWS::SNS::Subscription":
            del resources[key]


@mistake("the_alarms_of_the_architecture_are_as_it_says")
def high_cpu_fires_at_90(shipped: Shipped) -> None:
    alarm(shipped, "high-cpu")["Threshold"] = 90


@mistake("the_alarms_of_the_architecture_are_as_it_says")
def latency_is_compared_in_milliseconds(shipped: Shipped) -> None:
    alarm(shipped, "high-latency")["Threshold"] = 500


@mistake("the_alarms_of_the_architecture_are_as_it_says")
def the_error_rate_leaves_out_what_the_balancer_answers(shipped: Shipped) -> None:
    metrics = alarm(shipped, "high-error-rate")["Metrics"]
    gone = next(one for one in metrics if "HTTPCode_ELB_5XX_Count" in str(one))
    metrics.remove(gone)
    for one in metrics:
        if "Expression" in one:
            text = one["Expression"]
            one["Expression"] = {
                "Fn::Sub": str(text["Fn::Sub"] if isinstance(text, dict) else text).replace(
                    "FILL(e, 0)", "0"
                )
            }


@mistake("the_alarms_of_the_architecture_are_as_it_says")
def low_health_does_not_page(shipped: Shipped) -> None:
    page = alarm(shipped, "page")
    page["AlarmRule"] = 'ALARM("datahub-high-error-rate")'


@mistake("every_series_of_a_dashboard_has_data")
def a_widget_names_a_metric_that_nobody_publishes(shipped: Shipped) -> None:
    dashboard(shipped, '"DataHub/Gateway", "ActiveConnections"', '"DataHub/Gateway", "OpenConnections"')


@mistake("alarm_widgets_name_alarms_that_exist")
def the_dashboard_shows_an_alarm_that_does_not_exist(shipped: Shipped) -> None:
    dashboard(shipped, "${HighCpu.Arn}", "arn:aws:cloudwatch:us-east-1:${AWS::AccountId}:alarm:datahub-cpu")


@mistake("the_panels_of_the_architecture_are_there")
def the_dashboard_does_not_show_connections(shipped: Shipped) -> None:
    dashboard(shipped, '"DataHub/Gateway", "ActiveConnections"', '"DataHub/Gateway", "Heartbeat"')


@mistake("dashboards_parse")
def a_widget_is_wider_than_the_grid(shipped: Shipped) -> None:
    dashboard(shipped, '"width": 12', '"width": 32')


@mistake("every_upstream_has_an_alarm")
def an_upstream_is_added_to_the_configuration_only(shipped: Shipped) -> None:
    shipped.conf["production"]["upstreams"]["billing"] = {"endpoints": ["10.0.11.201:8080"]}
