# The same base and the same agent as OSCR's image, with a plain entrypoint.
ARG IMAGE
# hadolint ignore=DL3006
FROM ${IMAGE}
# The agent's own scripts write beside it.
RUN cp --archive /opt/oscr/agent /actions-runner && chown --recursive runner: /actions-runner
COPY plain.sh /plain.sh
USER runner
HEALTHCHECK NONE
ENTRYPOINT ["/plain.sh"]
