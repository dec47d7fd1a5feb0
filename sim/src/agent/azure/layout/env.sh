#!/bin/bash
# Stand-in for the official env.sh: keeps PATH and a few variables for later starts.
if [ -f .env ]; then
    touch .env
else
    for name in LANG VSTS_HTTP_PROXY VSTS_HTTP_PROXY_USERNAME VSTS_HTTP_PROXY_PASSWORD JAVA_HOME ANT_HOME M2_HOME ANDROID_HOME ANDROID_SDK_ROOT GRADLE_HOME NVM_BIN NVM_PATH LD_LIBRARY_PATH PERL5LIB; do
        if [ -n "${!name}" ]; then
            echo "$name=${!name}" >>.env
        fi
    done
    touch .env
fi
echo "$PATH" >.path
